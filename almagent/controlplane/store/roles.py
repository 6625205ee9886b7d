"""Roles, and which users they are attached to."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from almagent.controlplane import names
from almagent.controlplane.errors import Missing
from almagent.controlplane.store.database import transaction


@dataclass(frozen=True, slots=True)
class Role:
    role_id: str
    name: str
    scope: str  # JSON text, as it was given
    create_time: float  # seconds since the epoch, as the next one
    update_time: float


@dataclass(frozen=True, slots=True)
class Attachment:
    user_role_id: str
    username: str
    role: Role
    create_time: float  # seconds since the epoch, as the next one
    update_time: float


class Roles:
    def __init__(self, db: sqlite3.Connection, now: Callable[[], float], owner: str) -> None:
        self._db = db
        self._now = now
        self._owner = owner

    def create(self, name: str, scope: str) -> str:
        """The new role's id."""
        role_id, now = names.role_id(self._owner), self._now()
        self._db.execute(
            "INSERT INTO roles VALUES (?, ?, ?, ?, ?)", (role_id, name, scope, now, now)
        )
        return role_id

    def update(self, role_id: str, name: str, scope: str) -> None:
        """Raises Missing."""
        self.find(role_id)
        self._db.execute(
            "UPDATE roles SET name = ?, scope = ?, update_time = ? WHERE role_id = ?",
            (name, scope, self._now(), role_id),
        )

    def delete(self, role_id: str) -> None:
        """Also detaches it from everybody. Raises Missing."""
        self.find(role_id)
        self._db.execute("DELETE FROM roles WHERE role_id = ?", (role_id,))

    def find(self, role_id: str) -> Role:
        """Raises Missing."""
        row = self._db.execute("SELECT * FROM roles WHERE role_id = ?", (role_id,)).fetchone()
        if row is None:
            raise Missing("cannot find role: no such role_id")
        return Role(**row)

    def all(self) -> list[Role]:
        rows = self._db.execute("SELECT * FROM roles ORDER BY create_time, role_id")
        return [Role(**row) for row in rows]

    def attached(self, username: str) -> list[Attachment]:
        rows = self._db.execute(
            "SELECT * FROM user_roles WHERE username = ? ORDER BY create_time, user_role_id",
            (username,),
        ).fetchall()
        return [
            Attachment(
                row["user_role_id"],
                row["username"],
                self.find(row["role_id"]),
                row["create_time"],
                row["update_time"],
            )
            for row in rows
        ]

    def attach(self, username: str, role_id: str) -> str:
        """The attachment's id; that of the earlier one if the user has the role. Raises Missing."""
        self.find(role_id)
        now = self._now()
        row = self._db.execute(
            "INSERT INTO user_roles VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (username, role_id) DO UPDATE SET update_time = excluded.update_time"
            " RETURNING user_role_id",
            (names.user_role_id(self._owner), username, role_id, now, now),
        ).fetchone()
        return str(row["user_role_id"])

    def reattach(self, username: str, role_id: str) -> None:
        """The user has this role and no other from now on. Raises Missing."""
        with transaction(self._db):
            self.attach(username, role_id)
            self._db.execute(
                "DELETE FROM user_roles WHERE username = ? AND role_id != ?", (username, role_id)
            )

    def detach(self, username: str, role_id: str) -> None:
        """Raises Missing if the user does not have the role."""
        done = self._db.execute(
            "DELETE FROM user_roles WHERE username = ? AND role_id = ?", (username, role_id)
        )
        if not done.rowcount:
            raise Missing("cannot detach role: the user does not have it")
