"""Small endless loops that bring news: the document, the containers, the rules, the cloud's notices."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from almagent.core.backoff import full_jitter
from almagent.core.document import DocumentError, parse
from almagent.core.model import AgentStatus, AgentWord, Leave, Spec, Status
from almagent.core.notices import Departure, NoticeBook, budget
from almagent.health import Beat, unheard
from almagent.pacing import Phase, pause
from almagent.ports import ControlPlane, Metadata, PortError, Refused
from almagent.reconciler import Reconciler

NOTICE_BACKOFF = 10.0  # seconds; metadata services throttle, but some notices give only 30 s
SPARE = 10.0  # seconds before the cloud's deadline by which everything is done
LEAST = 1.0  # seconds that a container gets to end, however late the notice
WATCH_AGAIN = 5.0  # seconds after a stream of events has broken off

log = structlog.get_logger(__name__)


def uncounted(_result: str) -> None:
    """For callers that count nothing."""


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
        offer: Callable[[Sequence[Status]], None],
        learn: Callable[[Spec], None],
        count: Callable[[str], None] = uncounted,
        beat: Beat = unheard,
    ) -> None:
        """`learn` hears of each spec before anything is done with it; `count` of the result of each poll."""
        self._flag = flag
        self._control_plane = control_plane
        self._phase = phase
        self._reconciler = reconciler
        self._offer = offer
        self._learn = learn
        self._count = count
        self._beat = beat
        self._raw: bytes | None = None  # the document last judged
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
        self._count("changed" if changed else "unchanged")
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
            spec = parse(raw)
        except DocumentError as exc:
            log.warning("document.refused", reason=str(exc))
            reconciler.problems["document"] = f"cannot use the document: {exc}"
            reconciler.fall_back()
            return
        if spec is None:
            log.warning("document.empty", flag=self._flag)
            text = f"nothing is defined for flag {self._flag}; what runs keeps running"
            self._offer([AgentStatus(AgentWord.NOTICE, text)])
            reconciler.fall_back()
            return
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
        beat: Beat = unheard,
    ) -> None:
        self._metadata = metadata
        self._book = book
        self._interval = interval
        self._hook = hook or None
        self._reconciler = reconciler
        self._offer = offer
        self._chance = chance
        self._beat = beat
        self._failures = 0
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
        return self._interval

    def _depart(self) -> None:
        departure = self._book.departure()
        if departure is None or departure == self.departure:
            return
        self.departure = departure
        left = budget(departure.deadline, time.time())
        done_by = None if left is None else time.monotonic() + max(LEAST, left - spare(left))
        log.warning("agent.leaving", reason=departure.reason, seconds_left=left)
        self._reconciler.leave(Leave(departure.reason, done_by, self._hook))


def spare(left: float) -> float:
    """Seconds kept back for the last statuses; half of what is left when that is little."""
    return min(SPARE, left / 2)
