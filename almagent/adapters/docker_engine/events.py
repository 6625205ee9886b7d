"""The engine's event stream, for ever: through its restarts, its absence and its silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import Any

from almagent.adapters.docker_engine.door import EngineDoor
from almagent.adapters.docker_engine.labels import Owner
from almagent.journal import logger
from almagent.ports import PortError

IDLE = 300.0  # seconds without an event after which the connection is proved by a new one
RETRY = 1.0  # seconds between attempts while the engine is away
_NANO = 1_000_000_000

# Not the exec_* events: an engine sends them at every run of a health check.
EVENTS = (
    *("create", "start", "restart", "pause", "unpause", "update", "rename"),
    *("kill", "die", "oom", "stop", "destroy", "health_status"),
)

log = logger()


async def watch(door: EngineDoor, owner: Owner, *, idle: float = IDLE) -> AsyncIterator[str]:
    """The ids of the owner's containers to which something happened; "" after every (re)connection.

    Each connection begins where the one before it ended, so nothing is lost between the two.
    """
    since = time.time_ns()
    away = False
    while True:
        connected = False
        try:
            begin = partial(_begin, owner=owner, since=since)
            async for event in door.stream("watch containers", begin, idle=idle):
                if not event:
                    connected = True
                    away = _say(away=False, before=away)
                    yield ""
                    continue
                since = max(since, int(event.get("timeNano", 0)) + 1)
                yield str(event.get("id", ""))
        except PortError as exc:
            if not connected:  # one that ends after a long silence is not lost: the next one tells
                away = _say(away=True, before=away, reason=str(exc))
        await asyncio.sleep(RETRY)


def _begin(client: Any, owner: Owner, since: int) -> Iterable[dict[str, Any]]:
    moment = f"{since // _NANO}.{since % _NANO:09d}"
    filters = owner.filters | {"type": ["container"], "event": list(EVENTS)}
    events = client.events(decode=True, since=moment, filters=filters)
    yield {}
    yield from events


def _say(*, away: bool, before: bool, reason: str = "") -> bool:
    """Log the change once, not every attempt."""
    if away and not before:
        log.warning("engine.events_lost", reason=reason)
    if before and not away:
        log.info("engine.events_back")
    return away
