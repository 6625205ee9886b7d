"""Delivers the outbox: one status in flight, in order, saved before it is sent and after it arrived.

So a status is lost only with the disk, and repeated only when the control plane's 2xx did not reach the
disk: the agent died, or the answer was lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from almagent.core.model import Status
from almagent.core.outbox import Entry, Outbox, is_urgent
from almagent.health import Beat, unheard
from almagent.journal import logger
from almagent.pacing import Phase, pause
from almagent.ports import ControlPlane, Refused, Unavailable

LOOK_AGAIN = 60.0  # seconds between two looks when nothing is offered
HURRY = 5.0  # seconds, most that a try is put off when it cannot wait for the host's own moment
REPLAY_SPACING = 1.0  # seconds between the first statuses of a backlog ...
REPLAY_SPEED_UP = 5  # ... half of it after so many, a third after twice as many ...
REPLAY_FASTEST = 10  # ... but at most so many statuses in REPLAY_SPACING

log = logger()


def uncounted(_outcome: str) -> None:
    """For callers that count nothing."""


class Reporter:
    """`save` makes the outbox durable; it says False when the disk refuses, and all goes on from memory.

    What failed is tried again soon once, for a connection that was cut, then at the host's moments that
    `phase` tells. A backlog (after an outage, or found at the start) is sent slowly at first: a control
    plane that comes back meets all hosts of the fleet at once.
    """

    def __init__(
        self,
        outbox: Outbox,
        control_plane: ControlPlane,
        save: Callable[[], bool],
        phase: Phase,
        *,
        clock: Callable[[], float] = time.time,
        replay_spacing: float = REPLAY_SPACING,
        count: Callable[[str], None] = uncounted,
        beat: Beat = unheard,
    ) -> None:
        self._outbox = outbox
        self._control_plane = control_plane
        self._save = save
        self._phase = phase
        self._clock = clock
        self._replay_spacing = replay_spacing
        self._count = count
        self._beat = beat
        self._one_in_flight = asyncio.Lock()
        self._sending: asyncio.Task[float | None] | None = None
        self._offered = asyncio.Event()
        self._urgent = asyncio.Event()
        self.attempted = asyncio.Event()  # the first status was tried, for better or worse
        self._backlog = len(outbox) > 0
        self._replayed = 0

    def offer(self, statuses: Iterable[Status], *, force: bool = False) -> None:
        """Keep what is new and have it sent. `force`: also what repeats the last one of its subject."""
        now, dropped = self._clock(), self._outbox.dropped
        new = [status for status in statuses if self._outbox.offer(status, now, force=force)]
        if not new:
            return
        if self._outbox.dropped > dropped:
            log.warning("outbox.overflow", dropped=self._outbox.dropped, waiting=len(self._outbox))
        self._save()
        self._offered.set()
        if any(is_urgent(status) for status in new):
            self._urgent.set()

    async def run(self) -> None:
        """Send what waits and what will be offered, for ever."""
        while True:
            # What is under way when this loop ends arrives once: `flush` waits for it and goes on.
            self._sending = asyncio.create_task(self._send_next(), name="send one status")
            wait = await asyncio.shield(self._sending)
            self._beat(LOOK_AGAIN if wait is None else wait)
            if wait is None:
                await pause(self._offered, LOOK_AGAIN)
            elif wait > 0:
                await pause(self._urgent, wait)

    async def flush(self, deadline: float) -> bool:
        """Send what waits as fast as it goes until `deadline` (monotonic); True: nothing is left."""
        self._phase.succeeded()  # what comes now is worth a few quick tries
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                while True:
                    if await self._send_next() is None:
                        return True
                    await asyncio.sleep(self._phase.retry_wait(HURRY))
        return False

    async def _send_next(self) -> float | None:
        """Try one status; seconds to wait before the next, None when there is nothing to send."""
        async with self._one_in_flight:
            entry = self._outbox.head()
            if entry is None:
                self._backlog = False
                return None
            if is_urgent(entry.status):
                self._urgent.clear()  # it is being sent: nothing to wake up for any more
            try:
                await self._control_plane.post(entry.status)
            except Refused as error:
                self._outbox.drop(entry.seq)
                self._count("refused")
                log.warning("status.refused", word=entry.status.word, error=str(error))
            except Unavailable as error:
                self._count("unavailable")
                return self._after_failure(entry, error)
            else:
                self._count("acknowledged")
                self._outbox.acknowledge(entry.seq)
            finally:
                self.attempted.set()
            return self._after_answer()

    def _after_answer(self) -> float:
        if self._phase.failures:
            log.info("reports.resumed", tries=self._phase.failures, waiting=len(self._outbox))
        self._phase.succeeded()
        self._save()
        if not self._backlog:
            return 0.0
        self._replayed += 1
        speed = min(1 + self._replayed / REPLAY_SPEED_UP, REPLAY_FASTEST)
        return self._replay_spacing / speed

    def _after_failure(self, entry: Entry, error: Unavailable) -> float:
        self._phase.failed(error.retry_after)
        self._backlog = True
        self._replayed = 0
        if self._phase.failures == 1:
            log.warning("reports.delayed", error=str(error), waiting=len(self._outbox))
        if self._phase.failures == 1 or is_urgent(entry.status):
            return self._phase.retry_wait(HURRY)
        return self._phase.next_wait(asyncio.get_running_loop().time())
