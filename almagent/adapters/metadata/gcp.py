"""Google Compute Engine.

Sources, all in the Google Cloud documentation: "View and query VM metadata" (base URL, Metadata-Flavor,
wait_for_change, last_etag, timeout_sec), "Create and use Spot VMs" (instance/preempted), "Query metadata
server for maintenance event notices" (instance/maintenance-event).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import time

from almagent.adapters.calls import OnCall, uncounted
from almagent.adapters.metadata.client import TIMEOUT, Answer, Client
from almagent.adapters.metadata.reading import Notices, Watchlist, at, known, understand
from almagent.core.frozen import frozen
from almagent.ports import Notice, Unavailable

BASE = (
    "http://169.254.169.254"  # an address, because a name could be answered by anybody's resolver
)
FLAVOR = {"Metadata-Flavor": "Google"}
INSTANCE_ID = "/computeMetadata/v1/instance/id"
PREEMPTED = "/computeMetadata/v1/instance/preempted"
MAINTENANCE = "/computeMetadata/v1/instance/maintenance-event"

WAIT = 30.0  # seconds that one call waits for a change

ID = re.compile(r"[0-9]{1,20}")
ETAG = re.compile(r"[0-9A-Za-z]+")


@frozen
class Announcement:
    """What a value of a watched key means. `grace`: seconds between its appearance and the event."""

    key: str
    terminal: bool
    action: str
    grace: float


PREEMPTION = {
    "FALSE": None,
    "TRUE": Announcement("gcp/preempted", terminal=True, action="preempt", grace=30.0),
}
# A migrated VM goes on elsewhere, a terminated one is stopped. The grace is the least that is
# promised: a VM with a GPU is told an hour before.
HOST_MAINTENANCE = {
    "NONE": None,
    "MIGRATE_ON_HOST_MAINTENANCE": Announcement(
        "gcp/maintenance/migrate", terminal=False, action="live migration", grace=60.0
    ),
    "TERMINATE_ON_HOST_MAINTENANCE": Announcement(
        "gcp/maintenance/terminate", terminal=True, action="terminate", grace=60.0
    ),
}


class Gcp:
    """The notices and the identity of a Compute Engine VM.

    The service tells no times, so the deadline is what the documentation promises, counted from when
    this process saw the notice first.
    """

    name = "gcp"
    makers = ("google",)
    long_poll = True

    def __init__(
        self,
        base: str = "",
        *,
        timeout: float = TIMEOUT,
        on_call: OnCall = uncounted,
        wait: float = WAIT,
        now: Callable[[], float] = time,
    ) -> None:
        self._client = Client(base or BASE, timeout=timeout, on_call=on_call)
        self._wait = wait
        self._now = now
        self._etags: dict[str, str] = {}
        self._since: dict[str, tuple[Announcement, float]] = {}
        self._watchlist = Watchlist(self._preempted, self._maintenance)
        self.longest_call = wait + 2 * timeout

    async def recognise(self) -> bool:
        return bool(await self.instance_id())

    async def instance_id(self) -> str:
        answer = await self._get(INSTANCE_ID)
        text = answer.found() or ""
        if not ID.fullmatch(text):
            raise Unavailable(f"cannot read {INSTANCE_ID}: what is there is no instance id")
        return text

    async def notices(self) -> Notices:
        """Waits for a change since the last call, at most WAIT seconds, then reads everything."""
        await self._change()
        return await self._watchlist.poll()

    async def _change(self) -> None:
        if self._etags.keys() != {PREEMPTED, MAINTENANCE}:
            return  # what one of them says now is not known: ask, do not wait
        waits = [
            asyncio.create_task(self._hold(path, etag), name=f"metadata.wait {path}")
            for path, etag in self._etags.items()
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _hold(self, path: str, etag: str) -> None:
        """Returns when the value is another than the one of `etag`, and also when waiting is refused."""
        query = f"?wait_for_change=true&last_etag={etag}&timeout_sec={max(1, round(self._wait))}"
        with suppress(Unavailable):
            await self._client.get(path + query, headers=FLAVOR, wait=self._wait)

    async def _preempted(self) -> Notices:
        return await self._read(PREEMPTED, PREEMPTION)

    async def _maintenance(self) -> Notices:
        return await self._read(MAINTENANCE, HOST_MAINTENANCE)

    async def _read(self, path: str, meanings: Mapping[str, Announcement | None]) -> Notices:
        self._etags.pop(path, None)
        answer = await self._get(path)
        notices = understand(
            path, answer.found(), lambda text: self._heard(path, meanings[known(text, meanings)])
        )
        etag = answer.headers.get("ETag", "")
        if ETAG.fullmatch(etag):
            self._etags[path] = etag
        return notices

    async def _get(self, path: str) -> Answer:
        answer = await self._client.get(path, headers=FLAVOR)
        if answer.headers.get("Metadata-Flavor") != "Google":
            raise Unavailable(f"cannot read {path}: HTTP {answer.status}, and not from Google")
        return answer

    def _heard(self, path: str, said: Announcement | None) -> Notices:
        if said is None:
            self._since.pop(path, None)
            return ()
        if path not in self._since or self._since[path][0] != said:
            self._since[path] = (said, self._now())
        deadline = self._since[path][1] + said.grace
        what = f"{said.action} {at(deadline)}"
        return (Notice(said.key, terminal=said.terminal, what=what, deadline=deadline),)
