"""Fujitsu K5 and other OpenStack clouds.

Source: the OpenStack documentation, Nova "Metadata service": openstack/latest/meta_data.json and its
`uuid`. It announces no interruptions.
"""

from __future__ import annotations

import re

from almagent.adapters.calls import OnCall, uncounted
from almagent.adapters.metadata.client import LARGE, TIMEOUT, Client
from almagent.adapters.metadata.reading import Notices, decoded, field
from almagent.ports import Unavailable

BASE = "http://169.254.169.254"
DOCUMENT = "/openstack/latest/meta_data.json"
ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class K5:
    """The identity of an OpenStack server."""

    name = "k5"
    makers = ("fujitsu", "openstack")
    long_poll = False

    def __init__(
        self, base: str = "", *, timeout: float = TIMEOUT, on_call: OnCall = uncounted
    ) -> None:
        self._client = Client(base or BASE, timeout=timeout, on_call=on_call)
        self.longest_call = 0.0

    async def recognise(self) -> bool:
        return bool(await self.instance_id())

    async def instance_id(self) -> str:
        answer = await self._client.get(DOCUMENT, cap=LARGE)
        try:
            uuid = field(decoded(answer.found() or ""), "uuid")
        except (ValueError, RecursionError) as exc:
            raise Unavailable(f"cannot read {DOCUMENT}: it names no server") from exc
        if not ID.fullmatch(uuid):
            raise Unavailable(f"cannot read {DOCUMENT}: its uuid is none")
        return uuid

    async def notices(self) -> Notices:
        return ()
