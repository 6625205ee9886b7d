"""Access tokens: random, kept as digests, short-lived."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from almagent.controlplane.errors import Unauthorized
from almagent.controlplane.store.accounts import User


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent, known by the stack it belongs to."""

    stack_id: str


Caller = Agent | User


class Tokens:
    def __init__(
        self, db: sqlite3.Connection, now: Callable[[], float], find_user: Callable[[str], User]
    ) -> None:
        self._db = db
        self._now = now
        self._find_user = find_user

    def issue(self, caller: Caller, lifetime: float) -> str:
        """A new token for `lifetime` seconds; those that have expired are forgotten."""
        token = secrets.token_urlsafe(32)
        stack_id = caller.stack_id if isinstance(caller, Agent) else None
        username = caller.username if isinstance(caller, User) else None
        self._db.execute("DELETE FROM tokens WHERE expires <= ?", (self._now(),))
        self._db.execute(
            "INSERT INTO tokens VALUES (?, ?, ?, ?)",
            (_digest(token), self._now() + lifetime, stack_id, username),
        )
        return token

    def caller(self, token: str) -> Caller:
        """Whose token it is. Raises Unauthorized."""
        row = self._db.execute(
            "SELECT * FROM tokens WHERE digest = ? AND expires > ?", (_digest(token), self._now())
        ).fetchone()
        if row is None:
            raise Unauthorized("cannot accept access token: unknown or expired")
        return Agent(row["stack_id"]) if row["stack_id"] else self._find_user(row["username"])


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="backslashreplace")).hexdigest()
