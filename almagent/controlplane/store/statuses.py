"""The status calls of agents, every one, in the order of their arrival."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["agent", "container"]


@dataclass(frozen=True, slots=True)
class Report:
    """What an agent said; optional fields are None where it did not say them."""

    kind: Kind
    stack_id: str
    agent_id: str
    status: str
    container_id: str | None = None
    instance_id: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Received:
    id: int  # grows with every call
    received: float  # seconds since the epoch
    report: Report


class Statuses:
    def __init__(self, db: sqlite3.Connection, now: Callable[[], float]) -> None:
        self._db = db
        self._now = now

    def add(self, report: Report) -> None:
        self._db.execute(
            "INSERT INTO statuses (received, kind, stack_id, agent_id, status, container_id, instance_id, message)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._now(),
                report.kind,
                report.stack_id,
                report.agent_id,
                report.status,
                report.container_id,
                report.instance_id,
                report.message,
            ),
        )

    def of(self, stack_id: str, after: int = 0, limit: int = 1000) -> list[Received]:
        """The oldest first: at most `limit` whose id is greater than `after`."""
        rows = self._db.execute(
            "SELECT * FROM statuses WHERE stack_id = ? AND id > ? ORDER BY id LIMIT ?",
            (stack_id, after, limit),
        )
        return [_received(dict(row)) for row in rows]


def _received(row: dict[str, object]) -> Received:
    number, when = row.pop("id"), row.pop("received")
    return Received(number, when, Report(**row))  # type: ignore[arg-type]  # columns are the fields
