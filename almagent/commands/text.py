"""Text for people: aligned, wrapped to the screen, coloured only on a terminal."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable

WIDTH = 80  # columns where the screen does not say; never more than 100, which is hard to read
GREEN, YELLOW, RED, BOLD = "32", "33", "31", "1"


def coloured() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def paint(text: str, colour: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if coloured() and colour else text


def clean(text: str) -> str:
    """Containers and servers have their words in it: nothing may move the cursor or ring the bell."""
    return "".join(c if c.isprintable() else " " for c in text)


def columns() -> int:
    return min(shutil.get_terminal_size((WIDTH, 24)).columns, 100)


def table(rows: Iterable[tuple[str, str]]) -> str:
    """A name and a text a row; long texts go on below their beginning."""
    rows = [(name, clean(text)) for name, text in rows]
    margin = max(len(name) for name, _ in rows) + 2
    return "\n".join(
        hanging(f"{name:<{margin}}", text, margin) if text else name for name, text in rows
    )


def hanging(lead: str, text: str, margin: int) -> str:
    """`text` after `lead`, its further lines indented by `margin`."""
    width = max(columns() - margin, 20)
    lines = textwrap.wrap(text, width, break_long_words=True, break_on_hyphens=False) or [""]
    return lead + ("\n" + " " * margin).join(lines)
