"""What to make of the cloud's notices: each is reported once, and some mean leaving.

The book is fed with every clear answer and with nothing else: a poll that failed says nothing, so it
changes nothing. It is kept across restarts; deadlines are seconds since the epoch by the wall clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from typing import Protocol

from almagent.core.frozen import frozen
from almagent.core.model import AgentStatus, AgentWord
from almagent.core.plain import plain, revived

REBALANCE = "rebalance"  # last part of the key of a notice that on_rebalance="drain" acts upon
SETTLED = 2  # polls in a row before a rebalance counts, or a notice that vanished is believed gone
LONGEST_BUDGET = 3600.0  # seconds; no cloud grants a drain more, so a later time is a wrong clock
SAME_TIME = 1.0  # seconds within which two deadlines are one
LATEST = 253_402_300_800.0  # seconds since the epoch: the year 10000, of which no date can be told
REMEMBERED = 50  # withdrawn notices kept, so that one that comes back is not reported again


class Notice(Protocol):
    """A notice as the metadata port has it."""

    @property
    def key(self) -> str: ...
    @property
    def terminal(self) -> bool: ...
    @property
    def what(self) -> str: ...
    @property
    def deadline(self) -> float | None: ...


class Change(StrEnum):
    NEW = "notice.new"
    MOVED = "notice.moved"
    WITHDRAWN = "notice.withdrawn"
    RETURNED = "notice.returned"


@frozen
class Event:
    """Something to log, and to report if it has a status: only NEW has one."""

    change: Change
    key: str
    what: str
    deadline: float | None
    status: AgentStatus | None = None


@frozen
class Departure:
    """Why and until when this instance is to be left in good order."""

    reason: str
    deadline: float | None  # None: the cloud tells none


@frozen
class Entry:
    """One notice the book knows."""

    key: str
    terminal: bool
    what: str
    deadline: float | None
    seen: int = 1  # polls in a row, up to SETTLED, which a single miss does not undo
    missed: int = 0  # polls in a row, up to SETTLED: withdrawn

    @property
    def in_force(self) -> bool:
        return self.missed < SETTLED


class NoticeBook:
    """Every notice acts once: across polls, moved times, restarts and services that forget for a moment."""

    def __init__(self, entries: Iterable[Entry] = (), *, drain_on_rebalance: bool = False) -> None:
        self._entries = {entry.key: entry for entry in entries}
        self._drain_on_rebalance = drain_on_rebalance

    @classmethod
    def restore(
        cls, state: Mapping[str, object], now: float, *, drain_on_rebalance: bool = False
    ) -> NoticeBook:
        """From what `as_dict` gave, at wall-clock time `now`; what is not understood is left out.

        A notice whose time has passed counts again only when it is seen again, silently: a machine
        that was stopped by its notice and started later must not leave at once.
        """
        items = state.get("notices")
        entries = _revived(items if isinstance(items, list) else ())
        return cls(
            (_unless_past(entry, now) for entry in entries), drain_on_rebalance=drain_on_rebalance
        )

    def as_dict(self) -> dict[str, object]:
        return {"notices": [plain(entry) for entry in self._entries.values()]}

    def see(self, notices: Sequence[Notice]) -> list[Event]:
        """One clear answer: all notices in force. What follows from it, in order."""
        present = {notice.key: notice for notice in notices}
        events = [event for notice in present.values() for event in self._present(notice)]
        missing = [entry for key, entry in self._entries.items() if key not in present]
        events += [event for entry in missing for event in self._absent(entry)]
        self._forget()
        return events

    def departure(self) -> Departure | None:
        """None: stay. The earliest deadline counts, and the notice that has it."""
        leaving = [entry for entry in self._entries.values() if self._means_leaving(entry)]
        if not leaving:
            return None
        first = min(leaving, key=_urgency)
        return Departure(first.what, None if self._is_rebalance(first) else first.deadline)

    def _present(self, notice: Notice) -> list[Event]:
        entry = self._entries.get(notice.key)
        if entry is None or (not entry.in_force and _moved(entry, notice)):
            self._write(Entry(notice.key, notice.terminal, notice.what, notice.deadline))
            return [_event(Change.NEW, notice, _status(notice))]
        # A time that is no longer told (it has begun) is still the time that was.
        deadline = entry.deadline if notice.deadline is None else notice.deadline
        seen = min(entry.seen + 1, SETTLED)
        self._write(replace(entry, what=notice.what, deadline=deadline, seen=seen, missed=0))
        if not entry.in_force:
            return [_event(Change.RETURNED, notice)]
        return [_event(Change.MOVED, notice)] if _moved(entry, notice) else []

    def _absent(self, entry: Entry) -> list[Event]:
        if not entry.in_force:
            return []
        seen = entry.seen if entry.seen >= SETTLED else 0
        missing = replace(entry, seen=seen, missed=entry.missed + 1)
        self._write(missing)
        return [] if missing.in_force else [_event(Change.WITHDRAWN, missing)]

    def _write(self, entry: Entry) -> None:
        """At the end, so that the oldest comes first."""
        self._entries.pop(entry.key, None)
        self._entries[entry.key] = entry

    def _forget(self) -> None:
        withdrawn = [key for key, entry in self._entries.items() if not entry.in_force]
        for key in withdrawn[:-REMEMBERED]:
            del self._entries[key]

    def _means_leaving(self, entry: Entry) -> bool:
        if not entry.in_force:
            return False
        return entry.terminal or (self._is_rebalance(entry) and entry.seen >= SETTLED)

    def _is_rebalance(self, entry: Entry) -> bool:
        return self._drain_on_rebalance and entry.key.rpartition("/")[2] == REBALANCE


def budget(deadline: float | None, now: float) -> float | None:
    """Seconds from `now` to `deadline`, at least 0, at most an hour; None: there is no deadline."""
    if deadline is None:
        return None
    return min(max(deadline - now, 0.0), LONGEST_BUDGET)


def stays(left_for: Departure, now: float, quiet: float, margin: float) -> bool:
    """Whether an instance that was leaving goes on after all, at wall-clock time `now`.

    So it does when its notice was withdrawn, and when it slept through its end and woke up. `quiet`:
    seconds for which every answer was clear and none was a reason to leave. That long, and that long
    after the time that was told, it has to be `margin`: to come back for the last moment helps nobody.
    """
    deadline = left_for.deadline
    if deadline is None or deadline > now + LONGEST_BUDGET:
        return quiet >= margin
    return quiet >= margin and now >= deadline + margin


def _unless_past(entry: Entry, now: float) -> Entry:
    """The end of the machine may have come and gone: the next notice of one is another.

    No other time is an end (a recommendation tells when it was made): such a notice stays the same
    one, and has to be seen once more before it means leaving.
    """
    if entry.deadline is None or entry.deadline >= now:
        return entry
    if entry.terminal:
        return replace(entry, missed=SETTLED)
    return replace(entry, seen=min(entry.seen, SETTLED - 1))


def _urgency(entry: Entry) -> tuple[bool, bool, float]:
    """The end of the machine before a recommendation, a told time before an untold one."""
    return (not entry.terminal, entry.deadline is None, entry.deadline or 0.0)


def _moved(entry: Entry, notice: Notice) -> bool:
    if entry.deadline is None or notice.deadline is None:
        return entry.deadline is None and notice.deadline is not None
    return abs(entry.deadline - notice.deadline) > SAME_TIME


def _status(notice: Notice) -> AgentStatus:
    word = AgentWord.SPOT_TERMINATE if notice.terminal else AgentWord.NOTICE
    return AgentStatus(word, notice.what)


def _event(change: Change, notice: Notice, status: AgentStatus | None = None) -> Event:
    return Event(change, notice.key, notice.what, notice.deadline, status)


def _revived(items: Iterable[object]) -> Iterator[Entry]:
    for item in items:
        with suppress(ValueError):
            entry = revived(Entry, item)
            if entry.deadline is None or 0 <= entry.deadline < LATEST:
                yield entry
