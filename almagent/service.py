"""When the service manager hears what: ready once, what the agent does now, and the watchdog."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from almagent.health import Health
from almagent.journal import logger
from almagent.notify import ServiceManager
from almagent.pacing import pause
from almagent.status import Snapshot

LOOK_AGAIN = 10.0  # seconds, where no watchdog waits

log = logger()


async def keep_informed(
    manager: ServiceManager,
    *,
    started: asyncio.Event,
    changed: asyncio.Event,
    status: Callable[[], Snapshot],
    health: Health,
) -> None:
    """For ever. `started`: the first contact was made, for better or worse; `changed`: look at the status anew.

    The watchdog is fed only while every loop makes progress.
    """
    await started.wait()
    manager.ready()
    told, late_before = "", frozenset[str]()
    while True:
        now = status()
        text = f"{now.phase}: {now.doing}"
        if text != told:
            manager.status(text)
            told = text
        late = frozenset(health.late())
        if late and late != late_before:
            watched = manager.watchdog_interval is not None
            then = "the service manager restarts the agent" if watched else "they are waited for"
            log.error("loops.late", loops=sorted(late), then=then)
        if not late:
            manager.watchdog()
        late_before = late
        await pause(changed, manager.watchdog_interval or LOOK_AGAIN)
