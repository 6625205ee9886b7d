"""Which loops make progress: each says, at every step, by when it will be heard again.

The answer of `/healthz`, and whether the service manager's watchdog is fed. A neighbour that is away is
no reason to be unwell: its call ends by its deadline, and the loop goes on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from almagent.adapters.calls import SILENT, OnCall

GRACE = 15.0  # seconds that a starved machine may take beside all that is expected

Beat = Callable[[float], None]
"""Called by a loop before it waits: the next step comes within that many seconds."""


def unheard(_within: float) -> None:
    """For loops that nobody watches over."""


class Health:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due: dict[str, float] = {}

    def register(self, name: str, step: float = 0.0) -> Beat:
        """`step`: seconds that one step of this loop may take, beside the waits that it tells."""

        def beat(within: float) -> None:
            self._due[name] = self._clock() + within + step + GRACE

        beat(0.0)
        return beat

    def watch_calls(self, name: str, patience: float) -> OnCall:
        """For a neighbour whose calls may hang: late when all calls have been for `patience` seconds."""
        beat = self.register(name)
        silent = False

        def called(_request: str, outcome: str, _seconds: float) -> None:
            nonlocal silent
            if outcome != SILENT:
                beat(math.inf)
            elif not silent:
                beat(patience)
            silent = outcome == SILENT

        beat(math.inf)
        return called

    def loops(self) -> dict[str, bool]:
        """By name: whether it makes progress."""
        now = self._clock()
        return {name: now <= due for name, due in self._due.items()}

    def late(self) -> dict[str, float]:
        """The loops that are overdue, and by how many seconds."""
        now = self._clock()
        return {name: now - due for name, due in self._due.items() if now > due}
