"""What has to be remembered from one tick to the next, and how each action changes it.

All of it can be lost without harm to traffic: Docker and the kernel hold the truth, this only spares
retries, waits and releases that were made already.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import field, replace
from typing import assert_never

from almagent.core.actions import (
    Abandon,
    Action,
    Adopt,
    Collect,
    Create,
    Discard,
    KeepRestarting,
    Kill,
    Prepare,
    Reject,
    Remove,
    Retire,
    Revert,
    Route,
    RunHook,
    Start,
    Switch,
    Terminate,
    Watch,
)
from almagent.core.backoff import pause
from almagent.core.frozen import frozen
from almagent.core.model import Container, Release

START_PAUSE = 1.0  # seconds between two starts of a container that dies young, doubling
PAUSE_MAX = 300.0  # seconds; no pause grows beyond
RETRY_PAUSE = 10.0  # seconds before a failed release is tried again, doubling
STABLE_AFTER = 10.0  # seconds; a container that ran this long did not "die young"


@frozen
class Stop:
    """A container on its way out."""

    since: float
    drain_until: float  # its open connections may finish until then
    term_at: float | None = None  # when it got its stop signal


@frozen
class Trial:
    """A candidate that is being judged."""

    container_id: str
    since: float


@frozen
class Failure:
    """The last release that failed."""

    revision: str
    count: int
    message: str
    retry_at: float | None  # None: it was switched back; only another document tries again


@frozen
class Starts:
    """Starts in a row of an active container that dies young."""

    count: int
    next_at: float
    refused: bool = False  # the last one was: it has not run since, however long it did before

    def in_vain(self, container: Container) -> bool:
        """It has not lived for long since the last one."""
        return self.refused or container.up_for < STABLE_AFTER


@frozen
class Memory:
    active: str = ""  # container id; "" before the first release
    incarnation: str = ""  # of the active container, as last reported
    release: Release | None = None  # what the active container was made from
    candidate_release: Release | None = None
    previous: str = ""  # container id, kept while the active one bakes
    previous_release: Release | None = None
    switched_at: float | None = None
    up_at_switch: float = 0.0  # seconds that the active container had run by then
    trial: Trial | None = None
    stops: Mapping[str, Stop] = field(default_factory=dict)
    failure: Failure | None = None
    starts: Starts | None = None
    hook_done: bool = False
    swept: str = ""  # the container id that was active when images and exports were last collected


def remember(  # noqa: C901, PLR0911, PLR0912 - one arm an action
    memory: Memory, action: Action, now: float, detail: str = ""
) -> Memory:
    """Memory after `action` was done. `detail`: what its outcome adds to a failure's message."""
    match action:
        case Create(release=release):
            return replace(memory, candidate_release=release)
        case Watch(container=c):
            return replace(memory, trial=Trial(c.id, now))
        case Reject(revision=revision, message=message, wait=wait):
            return failed(memory, revision, message, now, wait)
        case Discard(container=c, reason=reason):
            memory = replace(memory, trial=None, candidate_release=None)
            return failed(memory, c.revision, reason + detail, now)
        case Start(container=c, active=True):
            return _started(memory, c, now)
        case Switch():
            return _switched(memory, action, now)
        case Adopt(container=c):
            return _adopted(memory, c)
        case Revert():
            return _reverted(memory, action, now, detail)
        case Retire(container=c, drain_until=until):
            return replace(memory, stops={**memory.stops, c.id: Stop(now, until)})
        case Terminate(container=c):
            return _terminated(memory, c.id, now)
        case Remove(container=c):
            return _removed(memory, c.id)
        case RunHook():
            return replace(memory, hook_done=True)
        case Collect(active=active):
            return replace(memory, swept=active)
        case Start() | Kill() | Prepare() | Abandon() | Route() | KeepRestarting():
            return memory
    assert_never(action)


def failed(memory: Memory, revision: str, message: str, now: float, wait: float = 0.0) -> Memory:
    """A release that did not come up: the next try comes after a pause that grows with each failure.

    One that was made again from memory, in place of a lost one, is first prepared anew; then it counts.
    """
    if memory.release is not None and memory.release.revision == revision:
        return replace(memory, release=None)
    last = memory.failure
    count = last.count + 1 if last and last.revision == revision else 1
    retry_at = now + max(wait, pause(count, RETRY_PAUSE, PAUSE_MAX))
    return replace(memory, failure=Failure(revision, count, message, retry_at))


def _without(memory: Memory, container_id: str) -> dict[str, Stop]:
    return {k: v for k, v in memory.stops.items() if k != container_id}


def _terminated(memory: Memory, container_id: str, now: float) -> Memory:
    """A container that we end ourselves does not fail its bake by that."""
    stop = replace(memory.stops.get(container_id) or Stop(now, now), term_at=now)
    switched_at = None if container_id == memory.active else memory.switched_at
    return replace(memory, stops={**memory.stops, container_id: stop}, switched_at=switched_at)


def start_refused(memory: Memory, container: Container, now: float) -> Memory:
    """Docker does not start the active container."""
    return _started(memory, container, now, refused=True)


def _started(memory: Memory, c: Container, now: float, *, refused: bool = False) -> Memory:
    last = memory.starts
    count = last.count + 1 if last and last.in_vain(c) else 1
    starts = Starts(count, now + pause(count, START_PAUSE, PAUSE_MAX), refused)
    return replace(memory, starts=starts, stops=_without(memory, c.id))


def _adopted(memory: Memory, c: Container) -> Memory:
    release = _release_of(c, memory)
    return replace(memory, active=c.id, incarnation=c.incarnation, release=release, trial=None)


def _release_of(container: Container, memory: Memory) -> Release | None:
    """What it was made from: what is noted last, or in place of a lost one; None if that is not noted."""
    known = (memory.candidate_release, memory.release)
    return next((r for r in known if r and r.revision == container.revision), None)


def _switched(memory: Memory, action: Switch, now: float) -> Memory:
    old, new = memory.active, action.container
    stops = dict(memory.stops)
    if old:
        begun = stops.get(old)
        stops[old] = Stop(now, action.drain_until, begun.term_at if begun else None)
    return replace(
        memory,
        active=new.id,
        incarnation=new.incarnation,
        release=_release_of(new, memory),
        candidate_release=None,
        previous=old,
        previous_release=memory.release,
        switched_at=now,
        up_at_switch=new.up_for,
        trial=None,
        stops=stops,
        failure=None,
        starts=None,
    )


def _reverted(memory: Memory, action: Revert, now: float, detail: str) -> Memory:
    bad = action.container
    stops = {**_without(memory, action.to.id), bad.id: Stop(now, action.drain_until)}
    return replace(
        memory,
        active=action.to.id,
        incarnation=action.to.incarnation,
        release=memory.previous_release,
        previous="",
        previous_release=None,
        switched_at=None,
        stops=stops,
        failure=Failure(bad.revision, 1, action.reason + detail, None),
        starts=None,
    )


def _removed(memory: Memory, container_id: str) -> Memory:
    trial = memory.trial if memory.trial and memory.trial.container_id != container_id else None
    was_previous = memory.previous == container_id
    return replace(
        memory,
        trial=trial,
        stops=_without(memory, container_id),
        previous="" if was_previous else memory.previous,
        previous_release=None if was_previous else memory.previous_release,
    )


def stayed(memory: Memory) -> Memory:
    """A leaving that was cut short is off: the next one runs the hook again and drains from its begin.

    A stop signal that was sent stays noted: it cannot be taken back.
    """
    retired = memory.stops.get(memory.active)
    off = retired is not None and retired.term_at is None
    stops = _without(memory, memory.active) if off else memory.stops
    return replace(memory, stops=stops, hook_done=False)


def forget_gone(memory: Memory, present: Collection[str]) -> Memory:
    """Drop what is noted about containers that Docker does not know any more."""
    stops = {k: v for k, v in memory.stops.items() if k in present}
    return memory if len(stops) == len(memory.stops) else replace(memory, stops=stops)
