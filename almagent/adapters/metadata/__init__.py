"""The clouds: one class each, one table, and finding out which one we are in.

A new cloud is one module with a class that has what `Cloud` lists, and one line in `CLOUDS`.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from almagent.adapters.calls import OnCall, uncounted
from almagent.adapters.metadata.alicloud import Alicloud
from almagent.adapters.metadata.aws import Aws
from almagent.adapters.metadata.azure import Azure
from almagent.adapters.metadata.client import TIMEOUT
from almagent.adapters.metadata.gcp import Gcp
from almagent.adapters.metadata.k5 import K5
from almagent.ports import Metadata, Unavailable

DETECTION = 2.0  # seconds for all clouds together: the agent's start waits for it


class Cloud(Metadata, Protocol):
    """Metadata, and what is needed to choose and to poll it.

    Poll from start to start, not from end to start: begin a call `poll_interval` after the last one
    began, or at once when that one took longer. It is right for both kinds of service: those that
    answer at once, and those that hold the answer back until there is news (`long_poll`).
    """

    long_poll: bool

    def __init__(
        self, base: str = "", *, timeout: float = TIMEOUT, on_call: OnCall = uncounted
    ) -> None:
        """`base`: another URL than the cloud's own; `timeout`: seconds for one exchange."""

    async def recognise(self) -> bool:
        """Whether it is certainly this cloud that answers. May raise Unavailable: it does not."""


# In the order of preference, should more than one be recognised: the unmistakable ones first, and the
# one with an address of its own, which is silent everywhere else, last.
CLOUDS: dict[str, type[Cloud]] = {
    "gcp": Gcp,
    "azure": Azure,
    "aws": Aws,
    "k5": K5,
    "alicloud": Alicloud,
}


async def detect(
    provider: str,
    endpoint: str = "",
    *,
    within: float = DETECTION,
    on_call: OnCall = uncounted,
) -> Cloud | None:
    """The cloud called `provider`, unasked; for "auto" the one that answers as only it does.

    None: "none", or no cloud was recognised `within` that many seconds. `name` of the result can be
    remembered and given as `provider` the next time. Raises KeyError for an unknown name.
    """
    if provider == "none":
        return None
    if provider != "auto":
        return CLOUDS[provider](endpoint, on_call=on_call)
    clouds = [make(endpoint, on_call=on_call) for make in CLOUDS.values()]
    answers = [
        asyncio.create_task(_recognised(cloud, within), name=f"metadata.detect {cloud.name}")
        for cloud in clouds
    ]
    try:
        for cloud, answer in zip(clouds, answers, strict=True):
            if await answer:
                return cloud
    finally:
        for answer in answers:
            answer.cancel()
        await asyncio.gather(*answers, return_exceptions=True)
    return None


async def _recognised(cloud: Cloud, within: float) -> bool:
    try:
        async with asyncio.timeout(within):
            return await cloud.recognise()
    except (Unavailable, TimeoutError):
        return False
