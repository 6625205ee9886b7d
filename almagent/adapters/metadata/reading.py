"""From what a metadata service says to notices: times, fields, and several paths as one poll."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from almagent.ports import Notice, Unavailable

Notices = tuple[Notice, ...]


def understand(path: str, text: str | None, parse: Callable[[str], Notices]) -> Notices:
    """What `parse` makes of the text at `path`; None (404) is no notice.

    `parse` raises ValueError for what it does not know; here that becomes Unavailable.
    """
    if text is None:
        return ()
    try:
        return parse(text)
    except (ValueError, OverflowError, RecursionError) as exc:
        raise Unavailable(f"cannot understand {path}: {_one_line(exc)}") from exc


def each(items: Iterable[object], parse: Callable[[object], Notices]) -> Notices:
    """The notices of all items. One that is not understood hides no other: it raises only if there is none."""
    notices: Notices = ()
    problem: ValueError | None = None
    for item in items:
        try:
            notices += parse(item)
        except ValueError as exc:
            problem = exc
    if problem and not notices:
        raise problem
    return notices


def field(document: object, name: str) -> str:
    """The text at `name` of a JSON object. Raises ValueError."""
    value = document.get(name) if isinstance(document, dict) else None
    if not isinstance(value, str):
        raise ValueError(f"no text at {name}")  # noqa: TRY004  (what came from outside is a value)
    return value


def whole_number(document: object, name: str) -> int:
    """The integer at `name` of a JSON object. Raises ValueError."""
    value = document.get(name) if isinstance(document, dict) else None
    if not isinstance(value, int):
        raise ValueError(f"no whole number at {name}")  # noqa: TRY004  (what came from outside is a value)
    return value


def items(document: object, name: str) -> list[object]:
    """The list at `name` of a JSON object. Raises ValueError."""
    value = document.get(name) if isinstance(document, dict) else None
    if not isinstance(value, list):
        raise ValueError(f"no list at {name}")  # noqa: TRY004  (what came from outside is a value)
    return value


def known(word: str, words: Iterable[str]) -> str:
    """`word` if it is one of `words`. Raises ValueError: what is not documented is not acted on."""
    if word not in words:
        raise ValueError(f"unknown word {word[:40]!r}")
    return word


def decoded(text: str) -> object:
    """Raises ValueError, RecursionError."""
    document: object = json.loads(text)
    return document


def iso_time(text: str) -> float:
    """Seconds since the epoch of "2026-01-05T18:02:00Z". Raises ValueError."""
    return _seconds(datetime.fromisoformat(text))


def mail_time(text: str) -> float:
    """Seconds since the epoch of "Mon, 19 Sep 2016 18:29:47 GMT", with or without the day's name."""
    return _seconds(parsedate_to_datetime(text))


def at(seconds: float | None) -> str:
    """A time for people, as the clouds write it."""
    if seconds is None:
        return "at a time not told"
    return f"at {datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _seconds(moment: datetime) -> float:
    if moment.tzinfo is None or not 2000 <= moment.year < 2200:
        raise ValueError("no time in our days with a time zone")
    return moment.timestamp()


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:200] or type(exc).__name__


Reader = Callable[[], Awaitable[Notices]]
SELDOM = 6  # polls, of which one reads what is announced days before


class Watchlist:
    """Several paths read at once as one poll.

    A path that does not answer clearly hides no notice of another, and what it said last stays in
    force: only a clear answer can withdraw a notice. Without any notice in hand the poll as a whole
    is unknown.
    """

    def __init__(self, *readers: Reader, seldom: Reader | None = None) -> None:
        """`seldom` reads what is announced days before: at the first poll and then at each sixth; at the very next
        one where its answer is unclear, or lacks what it told before."""
        self._often = readers
        self._seldom = (seldom,) if seldom else ()
        self._until_seldom = 0  # polls
        self._last: dict[Reader, Notices] = dict.fromkeys((*self._often, *self._seldom), ())

    async def poll(self) -> Notices:
        """Raises Unavailable."""
        self._until_seldom = max(0, self._until_seldom - 1)
        due, kept = (self._often, self._seldom) if self._until_seldom else (tuple(self._last), ())
        answers = await asyncio.gather(*(read() for read in due), return_exceptions=True)
        unknown: Unavailable | None = None
        clear: list[Reader] = []
        for read, answer in zip(due, answers, strict=True):
            if isinstance(answer, Unavailable):
                unknown = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                self._take(read, answer)
                clear.append(read)
        heard = bool(clear) and any(self._last[read] for read in (*clear, *kept))
        if unknown and not heard:
            raise unknown
        return tuple(notice for notices in self._last.values() for notice in notices)

    def _take(self, read: Reader, notices: Notices) -> None:
        if read in self._seldom:
            missing = {n.key for n in self._last[read]} - {n.key for n in notices}
            self._until_seldom = 1 if missing else SELDOM
        self._last[read] = notices
