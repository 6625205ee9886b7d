"""What the person at the terminal sees."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import TextIO

CLEAR_LINE = "\r\x1b[K"
GREEN, RED, BOLD, DIM = "32", "31", "1", "2"


class Screen:
    """Headings, ticks and quotations. On a terminal in colour, and with what is being waited for."""

    def __init__(self, out: TextIO, environ: Mapping[str, str]) -> None:
        self._out = out
        self._terminal = out.isatty() and environ.get("TERM") != "dumb"
        self._colour = self._terminal and not environ.get("NO_COLOR")
        self._waiting = False
        self._headings = 0

    @property
    def width(self) -> int | None:
        """Columns; None: no terminal, so nothing needs to be cut."""
        return shutil.get_terminal_size().columns if self._terminal else None

    def title(self, text: str) -> None:
        self._line(self._paint(BOLD, text))

    def heading(self, text: str) -> None:
        self._headings += 1
        self._line("")
        self._line(self._paint(BOLD, f"{self._headings}. {text}"))

    def waiting(self, text: str) -> None:
        """Shown until something else is."""
        if self._terminal:
            room = (self.width or 0) - 5
            self._out.write(f"{CLEAR_LINE}   {self._paint(DIM, f'… {text}'[:room])}")
            self._out.flush()
            self._waiting = True

    def tick(self, text: str) -> None:
        self._line(f"   {self._paint(GREEN, self._mark('✓', 'ok'))} {text}")

    def failure(self, text: str) -> None:
        self._line("")
        self._line(f"{self._paint(RED, self._mark('✗', 'failed:'))} {text}")

    def quote(self, text: str) -> None:
        """Somebody else's words."""
        for line in text.splitlines():
            self._line(f"     {self._mark('│', '|')} {line}")

    def text(self, text: str) -> None:
        for line in text.splitlines():
            self._line(line)

    def _line(self, text: str) -> None:
        self._out.write(f"{CLEAR_LINE if self._waiting else ''}{text}\n")
        self._out.flush()
        self._waiting = False

    def _mark(self, sign: str, word: str) -> str:
        """Not every terminal has signs."""
        try:
            sign.encode(self._out.encoding or "ascii")
        except UnicodeEncodeError:
            return word
        return sign

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text
