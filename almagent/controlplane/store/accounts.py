"""Who may log in: the master account, the users it makes, and the client they log in with."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from almagent.controlplane import names
from almagent.controlplane.errors import Conflict, Forbidden, Missing, Unauthorized
from almagent.controlplane.store.database import transaction

MASTER = "master"


@dataclass(frozen=True, slots=True)
class User:
    username: str
    master: bool
    create_time: float  # seconds since the epoch


class Accounts:
    """One organisation: one user id, one client, one master account, any number of users."""

    def __init__(self, db: sqlite3.Connection, now: Callable[[], float], login_file: Path) -> None:
        self._db = db
        self._now = now
        self._login_file = login_file
        self.user_id = self._setting("user_id") or self._remember("user_id", names.user_id())
        self._client_id = self._setting("client_id") or self._remember(
            "client_id", names.client_id(self.user_id)
        )
        if not (login_file.exists() and self._setting("client_secret")):
            self._issue_master()

    def log_in(self, client_id: str, client_secret: str, username: str, password: str) -> User:
        """Raises Unauthorized, without telling which part was wrong."""
        row = self._db.execute("SELECT * FROM users WHERE username = ?", (username,)).fetchone()
        known = row["password"] if row else _NOBODY
        right = (
            client_id == self._client_id
            and _matches(client_secret, self._setting("client_secret")),
            _matches(password, known),
        )
        if row is None or not all(right):
            raise Unauthorized("cannot log in: wrong client or user credentials")
        return _user(row)

    def find(self, username: str) -> User:
        """Raises Missing."""
        row = self._db.execute("SELECT * FROM users WHERE username = ?", (username,)).fetchone()
        if row is None:
            raise Missing("cannot find user: no such username")
        return _user(row)

    def all(self) -> list[User]:
        return [_user(row) for row in self._db.execute("SELECT * FROM users ORDER BY username")]

    def create(self, username: str, password: str) -> User:
        """Raises Conflict if there is one of that name."""
        row = (username, False, _hashed(password), self._now())
        try:
            self._db.execute("INSERT INTO users VALUES (?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            raise Conflict("cannot create user: the username is taken") from None
        return self.find(username)

    def delete(self, username: str) -> None:
        """With its tokens and attachments. Raises Missing, Forbidden for the master account."""
        if self.find(username).master:
            raise Forbidden("cannot delete user: it is the master account")
        self._db.execute("DELETE FROM users WHERE username = ?", (username,))

    def _issue_master(self) -> None:
        """New credentials for the master account and the client, kept where the operator reads them.

        The file is the body of the login request. It is written last: if that fails, the next start
        makes new ones. Removing it is how an operator replaces lost or leaked credentials.
        """
        client_secret, password = names.secret(), names.secret()
        with transaction(self._db):
            self._remember("client_secret", _hashed(client_secret))
            self._db.execute("DELETE FROM tokens WHERE username = ?", (MASTER,))
            self._db.execute(
                "INSERT INTO users VALUES (?, ?, ?, ?)"
                " ON CONFLICT (username) DO UPDATE SET password = excluded.password",
                (MASTER, True, _hashed(password), self._now()),
            )
        login = {
            "grant_type": "password",
            "client_id": self._client_id,
            "client_secret": client_secret,
            "username": MASTER,
            "password": password,
        }
        _write_private(self._login_file, json.dumps(login, indent=2) + "\n")

    def _setting(self, name: str) -> str:
        row = self._db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return row["value"] if row else ""

    def _remember(self, name: str, value: str) -> str:
        self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))
        return value


def _user(row: sqlite3.Row) -> User:
    return User(row["username"], bool(row["master"]), row["create_time"])


def _hashed(password: str) -> str:
    salt = secrets.token_bytes(16)
    return f"{salt.hex()}${_derived(password, salt).hex()}"


def _matches(password: str, hashed: str) -> bool:
    salt, _, expected = hashed.partition("$")
    return hmac.compare_digest(_derived(password, bytes.fromhex(salt)).hex(), expected)


def _derived(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**13, r=8, p=1)  # 8 MiB, about 20 ms


_NOBODY = "00$"  # no password matches it, in the time a real one takes


def _write_private(path: Path, text: str) -> None:
    beside = path.with_name(f"{path.name}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
