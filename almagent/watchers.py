"""Small endless loops that bring news: the document, the containers, the rules, the cloud's notices."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from almagent.core.backoff import RETRY_CAP, full_jitter
from almagent.core.backoff import pause as growing_pause
from almagent.core.document import DocumentError, parse
from almagent.core.model import AgentStatus, AgentWord, Leave, Spec, Status
from almagent.core.notices import Departure, NoticeBook, budget, stays
from almagent.health import Beat, unheard
from almagent.journal import logger
from almagent.pacing import Phase, pause
from almagent.ports import ControlPlane, Metadata, PortError, Refused
from almagent.reconciler import Reconciler

NOTICE_BACKOFF = 10.0  # seconds; metadata services throttle, but some notices give only 30 s
SPARE = 10.0  # seconds before the cloud's deadline by which everything is done
LEAST = 1.0  # seconds that a container gets to end, however late the notice
QUIET_POLLS = 12  # after the time of a notice that is gone; then the instance stays after all
LOOK_PAUSE = 10.0  # seconds before a cloud that was not found is looked for again, doubling ...
LOOKS = 6  # ... so often
WATCH_AGAIN = 5.0  # seconds after a stream of events has broken off

log = logger()


def uncounted(_result: str) -> None:
    """For callers that count nothing."""


class Offer(Protocol):
    def __call__(self, statuses: Sequence[Status], *, force: bool = False) -> None:
        """`force`: also what repeats the last one of its subject."""


@dataclass(slots=True)
class LastPoll:
    at: str = ""  # ISO 8601, UTC; "" before the first
    result: str = "none yet"


class DocumentWatcher:
    """Asks for the document on the clock of `pace` and hands a changed one to the reconciler."""

    def __init__(
        self,
        *,
        flag: str,
        control_plane: ControlPlane,
        phase: Phase,
        reconciler: Reconciler,
        offer: Offer,
        known: Callable[[], Iterable[Spec]],
        learn: Callable[[Spec], None],
        count: Callable[[str], None] = uncounted,
        beat: Beat = unheard,
    ) -> None:
        """`known` tells what may run already; `learn` hears of each spec before anything is done with it,
        `count` of the result of each poll."""
        self._flag = flag
        self._control_plane = control_plane
        self._phase = phase
        self._reconciler = reconciler
        self._offer = offer
        self._known = known
        self._learn = learn
        self._count = count
        self._beat = beat
        self._raw: bytes | None = None  # the document last judged
        self._was_defined = False  # by the last document that could be read since the start
        self._now = asyncio.Event()
        self.last = LastPoll()
        self.polled = asyncio.Event()  # set when the first answer, good or bad, was dealt with

    def poll_now(self) -> None:
        self._now.set()

    async def run(self) -> None:
        while True:
            await self.poll()
            self.polled.set()
            self._reconciler.wake()
            wait = self._phase.next_wait(time.monotonic())
            self._beat(wait)
            await pause(self._now, wait)

    async def poll(self) -> None:
        try:
            raw = await self._control_plane.fetch_document()
        except PortError as exc:
            self._failed(exc)
            return
        if self._reconciler.problems.pop("poll", None):
            log.info("poll.recovered")
        self._phase.succeeded()
        self._note("ok")
        changed = raw is not None and raw != self._raw
        result = "changed" if changed else "unchanged"
        self._count(result)
        log.debug("poll.done", result=result)
        if raw is not None and changed:
            self._raw = raw
            self._judge(raw)

    def _failed(self, exc: PortError) -> None:
        text = str(exc)
        if self.last.result != text:
            log.warning("poll.failed", reason=text)
        self._phase.failed(exc.retry_after)
        self._count("refused" if isinstance(exc, Refused) else "unavailable")
        self._note(text)
        self._reconciler.problems["poll"] = text
        if self._raw is None:
            self._reconciler.fall_back()

    def _note(self, result: str) -> None:
        self.last = LastPoll(datetime.now(UTC).isoformat(timespec="seconds"), result)

    def _judge(self, raw: bytes) -> None:
        reconciler = self._reconciler
        reconciler.problems.pop("document", None)
        try:
            spec = parse(raw, self._known())
        except DocumentError as exc:
            log.warning("document.refused", reason=str(exc))
            reconciler.problems["document"] = f"cannot use the document: {exc}"
            reconciler.fall_back()
            return
        if spec is None:
            log.warning("document.empty", flag=self._flag)
            text = f"nothing is defined for flag {self._flag}; what runs keeps running"
            self._offer([AgentStatus(AgentWord.NOTICE, text)], force=self._was_defined)
            self._was_defined = False
            reconciler.fall_back()
            return
        self._was_defined = True
        self._learn(spec)
        log.info("document.accepted", revision=spec.revision[:8], image=spec.image)
        if spec.ignored:
            log.warning("document.not_acted_on", fields=spec.ignored)
        reconciler.run_spec(spec)


async def watch_changes(
    what: str,
    changes: Callable[[], AsyncIterator[object]],
    reconciler: Reconciler,
    beat: Beat = unheard,
) -> None:
    """Something happened to our containers, or to our rules. After a gap: look at everything."""
    while True:
        beat(math.inf)  # nobody can tell when the next news will come
        try:
            async for _ in changes():
                reconciler.wake()
        except PortError as exc:
            log.warning("watch.interrupted", what=what, reason=str(exc))
        beat(WATCH_AGAIN)
        await asyncio.sleep(WATCH_AGAIN)
        reconciler.wake()


class InterruptionWatcher:
    """Asks the cloud whether this instance is going away; only a clear answer changes anything."""

    def __init__(
        self,
        *,
        metadata: Metadata,
        book: NoticeBook,
        interval: float,
        hook: str,
        reconciler: Reconciler,
        offer: Callable[[Sequence[Status]], None],
        chance: Callable[[], float],
        begin_anew: Callable[[], None],
        beat: Beat = unheard,
    ) -> None:
        """`begin_anew` is called when an instance that was leaving is to stay after all."""
        self._metadata = metadata
        self._book = book
        self._interval = interval
        self._hook = hook or None
        self._reconciler = reconciler
        self._offer = offer
        self._chance = chance
        self._begin_anew = begin_anew
        self._beat = beat
        self._failures = 0
        self._quiet_since: float | None = None  # clear answers only, none a reason to leave
        self.departure: Departure | None = None

    async def run(self) -> None:
        self._depart()  # a notice acted on before a restart still holds
        while True:
            begun = time.monotonic()
            interval = await self._poll()
            wait = max(0.0, begun + interval - time.monotonic())
            self._beat(wait + self._metadata.longest_call)
            await asyncio.sleep(wait)

    async def _poll(self) -> float:
        """Seconds from the begin of this call to that of the next."""
        try:
            notices = await self._metadata.notices()
        except PortError as exc:
            self._failures += 1
            self._quiet_since = None
            if self._failures == 1:
                log.warning("metadata.unknown", cloud=self._metadata.name, reason=str(exc))
            jitter = full_jitter(self._failures, self._chance(), base=1.0, cap=NOTICE_BACKOFF)
            return max(self._interval, jitter)
        self._failures = 0
        for event in self._book.see(notices):
            log.warning(str(event.change), notice=event.key, what=event.what)
            if event.status is not None:
                self._offer([event.status])
        self._depart()
        self._stay()
        return self._interval

    def _depart(self) -> None:
        departure = self._book.departure()
        if departure is None or departure == self.departure:
            return
        left = budget(departure.deadline, time.time())
        if self.departure is None:
            log.warning("agent.leaving", reason=departure.reason, seconds_left=left)
        self.departure = departure
        done_by = None if left is None else time.monotonic() + max(LEAST, left - spare(left))
        self._reconciler.leave(Leave(departure.reason, done_by, self._hook))

    def _stay(self) -> None:
        """Only clear answers, for a good while, undo a departure."""
        left_for = self.departure
        if left_for is None or self._book.departure() is not None:
            self._quiet_since = None
            return
        now = time.monotonic()
        if self._quiet_since is None:
            self._quiet_since = now
        if stays(left_for, time.time(), now - self._quiet_since, QUIET_POLLS * self._interval):
            text = f"no longer announced, this instance stays: {left_for.reason}"
            self._offer([AgentStatus(AgentWord.NOTICE, text)])
            log.warning("agent.stays", reason=left_for.reason)
            self.departure = None
            self._begin_anew()


async def look_for_cloud(
    find: Callable[[], Awaitable[bool]], begin_anew: Callable[[], None]
) -> None:
    """A metadata service may come up after us: without one we know neither our name nor our end.

    `find`: whether it tells by now who this instance is. A host without one is asked for some minutes.
    """
    for attempt in range(1, LOOKS + 1):
        await asyncio.sleep(growing_pause(attempt, LOOK_PAUSE, RETRY_CAP))
        if await find():
            log.info("metadata.found")
            begin_anew()
            break
    await asyncio.Event().wait()


def spare(left: float) -> float:
    """Seconds kept back for the last statuses; half of what is left when that is little."""
    return min(SPARE, left / 2)
