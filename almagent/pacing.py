"""When to call the control plane: spread over the interval, so that a fleet never comes in step.

Each host has moments of its own, one an interval, told by a hash. All polls after the first contact
happen at them, those after a failure too: a failure only makes the host leave some out. So a fleet that
starts at once, or that meets the API again at once, asks no faster than it always does.
Times are seconds of the monotonic clock.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable
from contextlib import suppress

from almagent.core.backoff import RETRY_CAP, full_jitter

PATIENCE = 5  # failures in a row at the host's own moments, which cost what polls cost, before it slows down


class Phase:
    """One host's moments for one kind of call. `chance` gives a random number in [0, 1).

    `key` is the agent id, or something longer where the host is to have other moments as well.
    """

    def __init__(self, key: str, interval: float, chance: Callable[[], float]) -> None:
        self._place = place_of(key)
        self._interval = interval
        self._chance = chance
        self._asked_to_wait = 0.0
        self.failures = 0  # in a row

    def first_wait(self, splay: float) -> float:
        """Seconds to the first contact, which comes soon: a new instance is to serve soon."""
        return self._chance() * splay

    def succeeded(self) -> None:
        self.failures = 0
        self._asked_to_wait = 0.0

    def failed(self, retry_after: float | None = None) -> None:
        self.failures += 1
        self._asked_to_wait = retry_after or 0.0

    def retry_wait(self, cap: float) -> float:
        """Seconds to a hurried new try that does not wait for the host's moment, at most `cap`."""
        return max(full_jitter(self.failures, self._chance(), cap=cap), self._asked_to_wait)

    def next_wait(self, now: float) -> float:
        """Seconds to the host's next moment, after many failures to one that comes later.

        At most the interval, after failures 300 s, or one interval more than the API asked for.
        """
        period = min(self._interval, RETRY_CAP) if self.failures else self._interval
        cap = max(RETRY_CAP - period, 0.0)
        slower = full_jitter(self.failures - PATIENCE, self._chance(), cap=cap)
        earliest = now + max(slower, self._asked_to_wait)
        moment = (math.floor(earliest / period - self._place) + 1 + self._place) * period
        return moment - now


def place_of(key: str) -> float:
    """Where in the interval the moment is, 0 to 1: evenly spread over any set of keys."""
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


async def pause(wake: asyncio.Event, seconds: float) -> None:
    """Until `wake` is set, at most `seconds`. Clears `wake`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await wake.wait()
    wake.clear()
