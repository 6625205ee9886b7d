"""Statuses that are not yet acknowledged, in order, bounded, with the memory that leaves out repeats.

A subject is what a status is about: one container's own state, what the image of one container wrote,
the agent's phase, its notices, the end of the instance. Within a subject each status supersedes the one
before it; all of them are transitions that the control plane should see.

When the outbox is full, what is lost is, in this order: the oldest status that comes again later for the
same subject (a container that flaps), the oldest one that is superseded, the oldest one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import field
from typing import Any, assert_never

from almagent.core.frozen import frozen
from almagent.core.model import AgentStatus, AgentWord, ContainerStatus, ContainerWord, Status
from almagent.core.wire import fitted

MAX_ENTRIES = 4000  # some hundred changes of a container in an outage, each with several words
MAX_BYTES = 1 << 20  # of the entries as they stand in the state file
MAX_SUBJECTS = 100  # containers and channels of which the last word is remembered

DROPPED_NOTICE = 0  # the number of the entry that says how many were dropped


_AGENT_WORDS = frozenset(AgentWord)

Subject = tuple[str, str]


@frozen
class Entry:
    seq: int  # of this run of the agent, only compared
    at: float  # seconds since the epoch: when it became true
    status: Status
    size: int = field(default=0, compare=False)  # bytes in the state file


class Outbox:
    """A plain data structure: nothing waits, nothing is written, one owner changes it."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._last: dict[Subject, Status] = {}  # by subject, the least recently changed first
        self._seq = DROPPED_NOTICE
        self._bytes = 0
        self._announced = 0
        self.dropped = 0  # statuses lost to the bounds, not yet told to the control plane

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def oldest(self) -> float | None:
        """When the oldest waiting status became true, seconds since the epoch."""
        return min((entry.at for entry in self._entries), default=None)

    def offer(self, status: Status, at: float, *, force: bool = False) -> bool:
        """Add `status` unless it repeats the last one of its subject; False: it did.

        `force` adds it all the same: `starting` registers the agent at every start. But not right behind
        its like: then that one was not even sent.
        """
        status = fitted(status)
        subject = subject_of(status)
        waits = bool(self._entries) and self._entries[-1].status == status
        if waits or (not force and self._last.get(subject) == status):
            return False
        self._remember(subject, status)
        self._append(status, at)
        self._trim()
        return True

    def head(self) -> Entry | None:
        """What to send next: the end of the instance before all else, then the oldest.

        When nothing else waits and some were dropped, a notice that says so.
        """
        for entry in self._entries:
            if is_urgent(entry.status):
                return entry
        if self._entries:
            return self._entries[0]
        if not self.dropped:
            return None
        self._announced = self.dropped
        text = f"{self.dropped} older statuses were dropped: too many waited"
        return Entry(DROPPED_NOTICE, 0.0, AgentStatus(AgentWord.NOTICE, text))

    def acknowledge(self, seq: int) -> None:
        """The control plane has it."""
        self._settle(seq)

    def drop(self, seq: int) -> None:
        """The control plane will never take it."""
        self._settle(seq)

    def open_containers(self) -> list[str]:
        """Ids of the containers that were reported and not yet as terminated."""
        return [
            status.container_id
            for status in self._last.values()
            if isinstance(status, ContainerStatus)
            and status.own
            and status.word != ContainerWord.TERMINATED
        ]

    def to_dict(self) -> dict[str, object]:
        return {
            "entries": [{"at": entry.at, **_dump(entry.status)} for entry in self._entries],
            "last": [_dump(status) for status in self._last.values()],
            "dropped": self.dropped,
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Outbox:
        """What can be read back; the rest is left out."""
        outbox = cls()
        for item in _items(raw.get("last")):
            status = _load(item)
            if status is not None:
                outbox._remember(subject_of(status), status)
        for item in _items(raw.get("entries"))[-MAX_ENTRIES:]:
            status, at = _load(item), item.get("at")
            if status is not None and isinstance(at, int | float) and math.isfinite(at):
                outbox._append(status, float(at))
        dropped = raw.get("dropped")
        outbox.dropped = dropped if isinstance(dropped, int) and dropped > 0 else 0
        outbox._trim()
        return outbox

    def _append(self, status: Status, at: float) -> None:
        self._seq += 1
        size = len(json.dumps({"at": at, **_dump(status)}))
        self._entries.append(Entry(self._seq, at, status, size))
        self._bytes += size

    def _settle(self, seq: int) -> None:
        if seq == DROPPED_NOTICE:
            self.dropped -= self._announced
            self._announced = 0
            return
        for index, entry in enumerate(self._entries):
            if entry.seq == seq:
                self._remove(index)
                return

    def _remove(self, index: int) -> None:
        self._bytes -= self._entries.pop(index).size

    def _trim(self) -> None:
        while len(self._entries) > MAX_ENTRIES or self._bytes > MAX_BYTES:
            self._remove(self._victim())
            self.dropped += 1

    def _victim(self) -> int:
        """Index of the entry to lose; never 0, which may be on its way just now."""
        repeated = superseded = 0
        statuses: set[Status] = set()
        subjects: set[Subject] = set()
        for index in range(len(self._entries) - 1, 0, -1):
            status = self._entries[index].status
            if status in statuses:
                repeated = index
            if subject_of(status) in subjects:
                superseded = index
            statuses.add(status)
            subjects.add(subject_of(status))
        return repeated or superseded or self._oldest_but_first()

    def _oldest_but_first(self) -> int:
        indices = range(1, len(self._entries))
        return next((i for i in indices if not is_urgent(self._entries[i].status)), 1)

    def _remember(self, subject: Subject, status: Status) -> None:
        self._last.pop(subject, None)  # so that it moves to the end
        self._last[subject] = status
        if len(self._last) > MAX_SUBJECTS:
            containers = [s for s in self._last.values() if isinstance(s, ContainerStatus)]
            ended = [s for s in containers if self._has_ended(s.container_id)]
            del self._last[subject_of((ended or containers)[0])]

    def _has_ended(self, container_id: str) -> bool:
        last = self._last.get(("container", container_id))
        return isinstance(last, ContainerStatus) and last.word == ContainerWord.TERMINATED


def subject_of(status: Status) -> Subject:
    match status:
        case ContainerStatus(container_id=container_id, own=own):
            return ("container" if own else "image", container_id)
        case AgentStatus(word=AgentWord.NOTICE | AgentWord.SPOT_TERMINATE as word):
            return ("agent", word.value)
        case AgentStatus():
            return ("agent", "phase")
    assert_never(status)


def is_urgent(status: Status) -> bool:
    """Whether it overtakes everything that waits."""
    return isinstance(status, AgentStatus) and status.word is AgentWord.SPOT_TERMINATE


def _dump(status: Status) -> dict[str, object]:
    if isinstance(status, AgentStatus):
        return {"agent": status.word.value, "message": status.message}
    return {"container": status.container_id, "word": str(status.word), "own": status.own}


def _load(item: Mapping[str, Any]) -> Status | None:
    match item:
        case {"agent": str(word), "message": str(message)} if word in _AGENT_WORDS:
            return fitted(AgentStatus(AgentWord(word), message))
        case {"container": str(container_id), "word": str(word), "own": bool(own)}:
            return fitted(ContainerStatus(container_id, word, own))
    return None


def _items(raw: object) -> list[Mapping[str, Any]]:
    return [item for item in raw if isinstance(item, dict)] if isinstance(raw, list) else []
