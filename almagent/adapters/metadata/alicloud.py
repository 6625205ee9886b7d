"""Alibaba Cloud ECS.

Sources, all in the Alibaba Cloud documentation: "Instance metadata" (base URL, tokens of the security
hardening mode, instance-id), "Perceive interruption events and responses"
(instance/spot/termination-time: 404, or the time in UTC).
"""

from __future__ import annotations

import re

from almagent.adapters.calls import OnCall, uncounted
from almagent.adapters.metadata.client import TIMEOUT, Client
from almagent.adapters.metadata.reading import Notices, at, iso_time, understand
from almagent.adapters.metadata.session import Session
from almagent.ports import Notice, Unavailable

BASE = "http://100.100.100.200"
INSTANCE_ID = "/latest/meta-data/instance-id"
SPOT = "/latest/meta-data/instance/spot/termination-time"

ID = re.compile(r"i-[0-9a-z]{8,24}")
EC2_ID = re.compile(r"i-([0-9a-f]{8}|[0-9a-f]{17})")  # the same path on AWS and OpenStack


class Alicloud:
    """The notices and the identity of an ECS instance."""

    name = "alicloud"
    makers = ("alibaba",)
    long_poll = False

    def __init__(
        self, base: str = "", *, timeout: float = TIMEOUT, on_call: OnCall = uncounted
    ) -> None:
        client = Client(base or BASE, timeout=timeout, on_call=on_call)
        self._session = Session(client, "X-aliyun-ecs-metadata-token")
        self.longest_call = 4 * timeout  # a token and a read, and both again after a 401

    async def recognise(self) -> bool:
        text = await self._session.read(INSTANCE_ID) or ""
        return bool(ID.fullmatch(text) and not EC2_ID.fullmatch(text))

    async def instance_id(self) -> str:
        text = await self._session.read(INSTANCE_ID) or ""
        if not ID.fullmatch(text):
            raise Unavailable(f"cannot read {INSTANCE_ID}: what is there is no ECS instance id")
        return text

    async def notices(self) -> Notices:
        return understand(SPOT, await self._session.read(SPOT), termination)


def termination(text: str) -> Notices:
    """2015-01-05T18:02:00Z; older documentation has an empty answer for "none"."""
    if not text:
        return ()
    deadline = iso_time(text)
    what = f"terminate {at(deadline)}"
    return (Notice("alicloud/spot", terminal=True, what=what, deadline=deadline),)
