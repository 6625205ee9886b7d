"""Tencent Cloud CVM.

Sources, both in the Tencent Cloud documentation: "Querying Instance Metadata" (base URL, instance-id),
https://www.tencentcloud.com/document/product/213/4934, and "Querying the Reclamation Status of a Spot
Instance" (spot/termination-time: 404, or the time in UTC+8),
https://www.tencentcloud.com/document/product/213/32487.
"""

from __future__ import annotations

import re

from almagent.adapters.calls import OnCall, uncounted
from almagent.adapters.metadata.client import TIMEOUT, Client
from almagent.adapters.metadata.reading import Notices, at, iso_time, understand
from almagent.ports import Notice, Unavailable

# The address of metadata.tencentyun.com, because a name could be answered by anybody's resolver.
BASE = "http://169.254.0.23"
INSTANCE_ID = "/latest/meta-data/instance-id"
SPOT = "/latest/meta-data/spot/termination-time"

ID = re.compile(r"ins-[0-9a-z]{8,16}")
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)
ZONE = "+08:00"


class Tencent:
    """The notices and the identity of a CVM instance."""

    name = "tencent"
    makers = ("tencent",)
    long_poll = False

    def __init__(
        self, base: str = "", *, timeout: float = TIMEOUT, on_call: OnCall = uncounted
    ) -> None:
        self._client = Client(base or BASE, timeout=timeout, on_call=on_call)
        self.longest_call = timeout

    async def recognise(self) -> bool:
        return bool(await self.instance_id())

    async def instance_id(self) -> str:
        answer = await self._client.get(INSTANCE_ID)
        text = answer.found() or ""
        if not ID.fullmatch(text):
            raise Unavailable(f"cannot read {INSTANCE_ID}: what is there is no CVM instance id")
        return text

    async def notices(self) -> Notices:
        answer = await self._client.get(SPOT)
        return understand(SPOT, answer.found(), termination)


def termination(text: str) -> Notices:
    """2018-08-18 12:05:33, in the time zone of China wherever the instance is."""
    if not TIME.fullmatch(text):
        raise ValueError("no time as documented")
    deadline = iso_time(text + ZONE)
    what = f"terminate {at(deadline)}"
    return (Notice("tencent/spot", terminal=True, what=what, deadline=deadline),)
