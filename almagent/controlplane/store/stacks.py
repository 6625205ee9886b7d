"""Stacks, the versions of their templates, and the container sections that agents ask for."""

from __future__ import annotations

import hmac
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from almagent.controlplane import jsontext, names
from almagent.controlplane.errors import Missing, Unauthorized
from almagent.controlplane.store.database import transaction
from almagent.controlplane.template import Template, document, sections, with_vendor_of


@dataclass(frozen=True, slots=True)
class Version:
    version_id: str
    template: Template
    size: int  # bytes of the template as it is kept
    last_modified: float  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class Stack:
    stack_id: str
    auth_token: str  # the client_secret of its agents; their client_id is the stack_id
    username: str
    nickname: str
    stack_status: str
    create_time: float  # seconds since the epoch
    latest: Version


class Stacks:
    """A stack is IN_PROGRESS until every layer whose container section changed is settled: fetched
    by an agent, and followed by an `uptodate`. Where no section changed, the next fetch settles it.
    """

    def __init__(self, db: sqlite3.Connection, now: Callable[[], float], owner: str) -> None:
        self._db = db
        self._now = now
        self._owner = owner

    def create(self, template: Template, username: str) -> Stack:
        stack_id = names.stack_id(self._owner)
        with transaction(self._db):
            self._db.execute(
                "INSERT INTO stacks VALUES (?, ?, ?, ?, 'CREATE_IN_PROGRESS', ?)",
                (stack_id, names.secret(), username, names.nickname(), self._now()),
            )
            self._add_version(stack_id, template)
        return self.find(stack_id)

    def update(self, stack_id: str, template: Template) -> Stack:
        """The vendor stays what it was. Raises Missing."""
        current = self.find(stack_id).latest.template
        with transaction(self._db):
            self._db.execute(
                "UPDATE stacks SET stack_status = 'UPDATE_IN_PROGRESS' WHERE stack_id = ?",
                (stack_id,),
            )
            self._add_version(stack_id, with_vendor_of(template, current))
        return self.find(stack_id)

    def find(self, stack_id: str) -> Stack:
        """Raises Missing."""
        row = self._db.execute("SELECT * FROM stacks WHERE stack_id = ?", (stack_id,)).fetchone()
        if row is None:
            raise Missing("cannot find stack: no such stack_id")
        return Stack(**row, latest=self.version(stack_id, "latest"))

    def all(self) -> list[Stack]:
        rows = self._db.execute("SELECT stack_id FROM stacks ORDER BY create_time, stack_id")
        return [self.find(row["stack_id"]) for row in rows.fetchall()]

    def versions(self, stack_id: str) -> list[Version]:
        """The newest first. Raises Missing."""
        rows = self._db.execute(
            "SELECT * FROM versions WHERE stack_id = ? ORDER BY number DESC", (stack_id,)
        ).fetchall()
        if not rows:
            raise Missing("cannot find stack: no such stack_id")
        return [_version(row) for row in rows]

    def version(self, stack_id: str, version_id: str) -> Version:
        """`version_id` empty or "latest": the newest. Raises Missing."""
        row = self._db.execute(
            "SELECT * FROM versions WHERE stack_id = ?1 AND (version_id = ?2 OR ?2 IN ('', 'latest'))"
            " ORDER BY number DESC LIMIT 1",
            (stack_id, version_id),
        ).fetchone()
        if row is None:
            raise Missing("cannot find template: no such stack_id or version_id")
        return _version(row)

    def authenticate(self, stack_id: str, auth_token: str) -> None:
        """Raises Unauthorized."""
        row = self._db.execute(
            "SELECT auth_token FROM stacks WHERE stack_id = ?", (stack_id,)
        ).fetchone()
        expected = row["auth_token"] if row else ""
        if row is None or not hmac.compare_digest(auth_token.encode(), expected.encode()):
            raise Unauthorized("cannot log in: wrong client credentials")

    def hand_out(self, stack_id: str, flag: str) -> str:
        """The config document of a layer as JSON text, "" if there is none; its agent has it from now on."""
        row = self._db.execute(
            "SELECT * FROM layers WHERE stack_id = ? AND flag = ?", (stack_id, flag)
        ).fetchone()
        if row is not None and row["stage"] == "changed":
            self._db.execute(
                "UPDATE layers SET stage = 'fetched' WHERE stack_id = ? AND flag = ?",
                (stack_id, flag),
            )
        self._complete(stack_id)
        if row is None or row["section"] is None:
            return ""
        return jsontext.compact(document(json.loads(row["section"]), row["updated"]))

    def settle(self, stack_id: str) -> None:
        """An agent of the stack says that it is up to date."""
        with transaction(self._db):
            self._db.execute(
                "UPDATE layers SET stage = 'settled' WHERE stack_id = ? AND stage = 'fetched'",
                (stack_id,),
            )
            self._complete(stack_id)

    def _complete(self, stack_id: str) -> None:
        self._db.execute(
            "UPDATE stacks SET stack_status = replace(stack_status, 'IN_PROGRESS', 'COMPLETE')"
            " WHERE stack_id = ?1 AND stack_status LIKE '%IN_PROGRESS'"
            " AND NOT EXISTS (SELECT 1 FROM layers WHERE stack_id = ?1 AND stage != 'settled')",
            (stack_id,),
        )

    def _add_version(self, stack_id: str, template: Template) -> None:
        self._db.execute(
            "INSERT INTO versions (version_id, stack_id, body, last_modified) VALUES (?, ?, ?, ?)",
            (names.version_id(), stack_id, jsontext.compact(template), self._now()),
        )
        kept = {
            row["flag"]: row
            for row in self._db.execute("SELECT * FROM layers WHERE stack_id = ?", (stack_id,))
        }
        wanted = {flag: jsontext.compact(one) for flag, one in sections(template).items()}
        for flag in kept.keys() | wanted.keys():
            self._set_layer(stack_id, flag, wanted.get(flag), kept.get(flag))

    def _set_layer(
        self, stack_id: str, flag: str, section: str | None, kept: sqlite3.Row | None
    ) -> None:
        """A layer that loses its section is kept, so that `updated` never goes back."""
        if kept is not None and kept["section"] == section:
            return
        updated = max(int(self._now()), kept["updated"] + 1 if kept else 0)
        stage = "settled" if section is None else "changed"
        self._db.execute(
            "INSERT OR REPLACE INTO layers VALUES (?, ?, ?, ?, ?)",
            (stack_id, flag, section, updated, stage),
        )


def _version(row: sqlite3.Row) -> Version:
    template: dict[str, Any] = json.loads(row["body"])
    return Version(row["version_id"], template, len(row["body"].encode()), row["last_modified"])
