"""The clouds: one class each, and finding out which one we are in.

A new cloud is one module with a class that has what `Cloud` lists, and one line in the table
`almagent.clouds.CLOUDS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pkgutil import resolve_name
from typing import Protocol

from almagent.adapters.calls import OnCall, uncounted
from almagent.adapters.metadata.client import TIMEOUT
from almagent.clouds import CLOUDS
from almagent.ports import Metadata, Unavailable

DETECTION = 2.0  # seconds for all clouds together: the agent's start waits for it


class Cloud(Metadata, Protocol):
    """Metadata, and what is needed to choose and to poll it.

    Poll from start to start, not from end to start: begin a call `poll_interval` after the last one
    began, or at once when that one took longer. It is right for both kinds of service: those that
    answer at once, and those that hold the answer back until there is news (`long_poll`).
    """

    long_poll: bool
    makers: tuple[str, ...]  # how the firmware's name of the maker begins, in lower case

    def __init__(
        self, base: str = "", *, timeout: float = TIMEOUT, on_call: OnCall = uncounted
    ) -> None:
        """`base`: another URL than the cloud's own; `timeout`: seconds for one exchange."""

    async def recognise(self) -> bool:
        """Whether it is certainly this cloud that answers. May raise Unavailable: it does not."""


def class_of(name: str) -> type[Cloud]:
    """Of the cloud called `name`. Raises KeyError for an unknown name."""
    found: type[Cloud] = resolve_name(CLOUDS[name])
    return found


async def detect(
    provider: str,
    endpoint: str = "",
    *,
    known: str = "",
    within: float = DETECTION,
    on_call: OnCall = uncounted,
) -> Cloud | None:
    """The cloud called `provider`, unasked; for "auto" the one that answers as only it does.

    `known`: the name of the one that was found before. It is asked alone, and stays the one while
    nobody else is recognised: a service may be silent for a moment, and a disk may move to another
    cloud. None: "none", or no cloud was recognised `within` that many seconds. Raises KeyError for
    an unknown name of a provider.
    """

    def make(name: str) -> Cloud:
        return class_of(name)(endpoint, on_call=on_call)

    if provider == "none":
        return None
    if provider != "auto":
        return make(provider)
    if known not in CLOUDS:
        return await _first_recognised([make(name) for name in CLOUDS], within)
    before = make(known)
    if await _recognised(before, within / 2):
        return before
    others = [make(name) for name in CLOUDS if name != known]
    return await _first_recognised(others, within / 2) or before


async def _first_recognised(clouds: Collection[Cloud], within: float) -> Cloud | None:
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
