"""The one SQLite file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FORMAT = 1  # PRAGMA user_version; a change of the tables needs a new one and a way there

_TABLES = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE users (
    username TEXT PRIMARY KEY, master INTEGER NOT NULL, password TEXT NOT NULL, create_time REAL NOT NULL
);
CREATE TABLE stacks (
    stack_id TEXT PRIMARY KEY, auth_token TEXT NOT NULL, username TEXT NOT NULL, nickname TEXT NOT NULL,
    stack_status TEXT NOT NULL, create_time REAL NOT NULL
);
CREATE TABLE tokens (
    digest TEXT PRIMARY KEY, expires REAL NOT NULL,
    stack_id TEXT REFERENCES stacks ON DELETE CASCADE,
    username TEXT REFERENCES users ON DELETE CASCADE
);
CREATE TABLE versions (
    number INTEGER PRIMARY KEY, version_id TEXT NOT NULL UNIQUE, stack_id TEXT NOT NULL REFERENCES stacks,
    body TEXT NOT NULL, last_modified REAL NOT NULL
);
CREATE INDEX versions_of_stack ON versions (stack_id, number);
CREATE TABLE layers (
    stack_id TEXT NOT NULL REFERENCES stacks, flag TEXT NOT NULL, section TEXT,
    updated INTEGER NOT NULL, stage TEXT NOT NULL, PRIMARY KEY (stack_id, flag)
);
CREATE TABLE statuses (
    id INTEGER PRIMARY KEY, received REAL NOT NULL, kind TEXT NOT NULL, stack_id TEXT NOT NULL REFERENCES stacks,
    agent_id TEXT NOT NULL, status TEXT NOT NULL, container_id TEXT, instance_id TEXT, message TEXT
);
CREATE INDEX statuses_of_stack ON statuses (stack_id, id);
CREATE TABLE roles (
    role_id TEXT PRIMARY KEY, name TEXT NOT NULL, scope TEXT NOT NULL,
    create_time REAL NOT NULL, update_time REAL NOT NULL
);
CREATE TABLE user_roles (
    user_role_id TEXT PRIMARY KEY, username TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
    role_id TEXT NOT NULL REFERENCES roles ON DELETE CASCADE,
    create_time REAL NOT NULL, update_time REAL NOT NULL, UNIQUE (username, role_id)
);
"""


class CannotOpen(Exception):
    """The state file cannot be used; the text says why."""


def connect(path: Path) -> sqlite3.Connection:
    """Open or create the file, readable by its owner only. Raises CannotOpen."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)
        connection = sqlite3.connect(path, isolation_level=None)
    except (OSError, sqlite3.Error) as exc:
        why = exc.strerror if isinstance(exc, OSError) else exc
        raise CannotOpen(f"cannot open {path}: {why}") from exc
    try:
        _prepare(connection, path)
    except sqlite3.Error as exc:
        connection.close()
        raise CannotOpen(f"cannot open {path}: {exc}") from exc
    except CannotOpen:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.row_factory = sqlite3.Row
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found > _FORMAT:
        raise CannotOpen(f"cannot open {path}: it was written by a newer release")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA journal_mode = WAL")
    if found < _FORMAT:
        connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {_FORMAT}; COMMIT;")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
