"""What a check says: how it is, and what to do about it."""

from __future__ import annotations

from enum import StrEnum

from almagent.core.frozen import frozen


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@frozen
class Finding:
    level: Level
    text: str
    fix: str = ""  # for the operator, to be followed literally


def ok(text: str) -> Finding:
    return Finding(Level.OK, text)


def warn(text: str, fix: str) -> Finding:
    return Finding(Level.WARN, text, fix)


def fail(text: str, fix: str) -> Finding:
    return Finding(Level.FAIL, text, fix)
