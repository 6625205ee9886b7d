"""What the agent tells of itself: one object, the same over the socket and in `status --json`.

The field names are a promise. There is no field that could hold a secret: of the document only its
revision and its `updated` are shown, and messages are scrubbed before they get here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum

from almagent import __version__
from almagent.core.cast import UP, Policy, cast
from almagent.core.frozen import frozen
from almagent.core.model import (
    AgentStatus,
    AgentWord,
    Container,
    Keep,
    Leave,
    Run,
    Status,
)
from almagent.core.notices import Departure
from almagent.reconciler import Reconciler
from almagent.state import State
from almagent.watchers import LastPoll


class Phase(StrEnum):
    STARTING = "starting"
    INSTALLING = "installing"
    UPTODATE = "uptodate"
    ERROR = "error"
    DRAINING = "draining"
    STOPPED = "stopped"


@frozen
class Wanted:
    revision: str | None  # None: nothing is defined, or nothing is known yet
    updated: int | None


@frozen
class Shown:
    """A container. Times are ISO 8601, UTC."""

    container_id: str
    image: str
    image_digest: str
    commit: str
    revision: str
    state: str  # Docker's word
    since: str | None  # when it started; None: it does not run
    ports: tuple[int, ...]


@frozen
class Poll:
    at: str | None  # None: not yet
    result: str


@frozen
class Trouble:
    at: str
    message: str


@frozen
class Waiting:
    pending: int  # statuses not yet acknowledged
    oldest: str | None  # when the oldest of them became true


@frozen
class Interruption:
    reason: str
    deadline: str | None  # None: not told


@frozen
class Snapshot:
    version: str
    pid: int
    agent_id: str
    instance_id: str
    stack_id: str
    flag: str
    phase: Phase
    doing: str  # one line for people
    strategy: str
    desired: Wanted
    active: Shown | None
    candidate: Shown | None
    last_poll: Poll
    last_error: Trouble | None
    outbox: Waiting
    interruption: Interruption | None


@frozen
class Who:
    agent_id: str
    instance_id: str
    stack_id: str
    flag: str


class LastWords:
    """What was last said about the agent itself."""

    def __init__(self) -> None:
        self.word = AgentWord.STARTING
        self.error: Trouble | None = None
        self._message = ""

    def hear(self, status: Status) -> None:
        if not isinstance(status, AgentStatus) or status.word is AgentWord.NOTICE:
            return
        again = (self.word, self._message) == (status.word, status.message)
        if status.word is AgentWord.ERROR and not again:
            self.error = Trouble(iso(time.time()), status.message)
        self.word, self._message = status.word, status.message


class Overview:
    """Looks at the agent's parts and says how things are."""

    def __init__(
        self,
        *,
        who: Who,
        policy: Policy,
        state: State,
        reconciler: Reconciler,
        last_poll: Callable[[], LastPoll],
        last_words: LastWords,
        departure: Callable[[], Departure | None],
        scrub: Callable[[str], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._who = who
        self._policy = policy
        self._state = state
        self._reconciler = reconciler
        self._last_poll = last_poll
        self._last_words = last_words
        self._departure = departure
        self._scrub = scrub
        self._clock = clock

    def snapshot(self) -> Snapshot:
        desired, seen = self._reconciler.desired, self._reconciler.seen
        parts = cast(desired, seen, self._state.memory, self._policy) if seen else None
        active = parts.active if parts else None
        candidate = parts.candidate if parts else None
        poll, outbox = self._last_poll(), self._state.outbox
        departure = self._departure()
        return Snapshot(
            version=__version__,
            pid=os.getpid(),
            agent_id=self._who.agent_id,
            instance_id=self._who.instance_id,
            stack_id=self._who.stack_id,
            flag=self._who.flag,
            phase=self._phase(),
            doing=self._scrub(self._doing(active)),
            strategy=self._policy.strategy.value,
            desired=self._wanted(),
            active=self._shown(active),
            candidate=self._shown(candidate),
            last_poll=Poll(poll.at or None, self._scrub(poll.result)),
            last_error=self._last_words.error,
            outbox=Waiting(len(outbox), None if outbox.oldest is None else iso(outbox.oldest)),
            interruption=None if departure is None else _interruption(departure),
        )

    def _phase(self) -> Phase:
        reconciler, word = self._reconciler, self._last_words.word
        if isinstance(reconciler.desired, Leave):
            return Phase.STOPPED if reconciler.gone else Phase.DRAINING
        if reconciler.problems:
            return Phase.ERROR
        if isinstance(reconciler.desired, Keep):
            return Phase.UPTODATE if self._last_poll().at else Phase.STARTING
        return Phase(word.value) if word.value in set(Phase) else Phase.INSTALLING

    def _doing(self, active: Container | None) -> str:
        desired, phase = self._reconciler.desired, self._phase()
        match desired:
            case Leave(reason=reason) if phase is Phase.STOPPED:
                return f"all containers are removed ({reason}); a restart deploys again"
            case Leave(reason=reason):
                return "; ".join([f"leaving: {reason}", *self._reconciler.problems.values()])
            case _ if phase is Phase.ERROR and self._last_words.error:
                return self._last_words.error.message
            case Run(spec=spec) if phase is Phase.INSTALLING:
                return f"installing release {spec.revision[:8]} (image {spec.image})"
            case Keep() if phase is Phase.STARTING:
                return "making first contact"
            case _:
                return _serving(active)

    def _wanted(self) -> Wanted:
        desired = self._reconciler.desired
        if isinstance(desired, Run):
            return Wanted(desired.spec.revision, desired.spec.updated)
        return Wanted(None, None)

    def _shown(self, c: Container | None) -> Shown | None:
        if c is None:
            return None
        age = self._clock() - self._reconciler.seen_at + c.up_for
        return Shown(
            container_id=c.id,
            image=c.image,
            image_digest=c.image_digest,
            commit=c.commit,
            revision=c.revision,
            state=c.state.value,
            since=iso(time.time() - age) if c.state in UP else None,
            ports=c.ports,
        )


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _interruption(departure: Departure) -> Interruption:
    deadline = departure.deadline
    return Interruption(departure.reason, None if deadline is None else iso(deadline))


def _serving(active: Container | None) -> str:
    if active is None:
        return "nothing is defined to run"
    ports = ", ".join(map(str, active.ports))
    where = f" on port{'s' if len(active.ports) > 1 else ''} {ports}" if ports else ""
    return f"serving release {active.revision[:8]}{where}"
