"""Errors that end a command. Cheap to import: the command line catches them."""

from __future__ import annotations

from collections.abc import Iterable


class SettingsError(Exception):
    """What the operator gave cannot be used: one line a problem, naming file, key and what is allowed."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))
