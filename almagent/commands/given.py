"""What a person gives to read: a file by its name, or - for stdin."""

from __future__ import annotations

import sys
from pathlib import Path

from almagent.errors import SettingsError

LIMIT = 1 << 20  # bytes; the API's answers have the same


def place(name: str) -> str:
    """How error lines call it."""
    return "stdin" if name == "-" else name


def read(name: str) -> bytes:
    """Raises SettingsError."""
    try:
        if name == "-":
            content = sys.stdin.buffer.read(LIMIT + 1)
        else:
            with Path(name).open("rb") as file:
                content = file.read(LIMIT + 1)
    except OSError as exc:
        raise SettingsError([f"{place(name)}: cannot read: {exc.strerror}"]) from exc
    if len(content) > LIMIT:
        raise SettingsError([f"{place(name)}: cannot use: larger than {LIMIT} bytes"])
    return content


def read_text(name: str) -> str:
    """Raises SettingsError."""
    try:
        return read(name).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SettingsError([f"{place(name)}: cannot read: not UTF-8 text"]) from None
