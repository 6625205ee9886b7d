"""An instance that was announced to end, and goes on: it serves again without being asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.peers.agent import Agent, answers, fetch
from tests.peers.api import ScriptedApi
from tests.peers.metadata import AwsPeer, Fault
from tests.scenario.releases import document

INTERVAL = 0.25  # seconds between two polls


@pytest.fixture
async def cloud(agent: Agent) -> AsyncIterator[AwsPeer]:
    async with AwsPeer() as peer:
        agent.configure(cloud={"provider": "aws", "endpoint": peer.url, "poll_interval": INTERVAL})
        yield peer


async def test_a_host_that_wakes_up_after_its_end_serves_again(
    agent: Agent, api: ScriptedApi, cloud: AwsPeer, image: str, port: int
):
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("uptodate")
    before = len(agent.statuses())
    await cloud.put(cloud.spot, cloud.notice(4, "hibernate"))
    await agent.until_told("terminated")
    await agent.until(lambda: not agent.containers(), "container removed", 3)
    await cloud.put(cloud.spot, None)
    await agent.until_told("uptodate", 2)
    assert await fetch(port) == "one"
    words = [word for word, _ in agent.statuses()[before:]]
    assert words[:4] == ["spot_terminate", "terminated", "notice", "starting"]
    assert words.count("spot_terminate") == 1
    await cloud.put(cloud.spot, cloud.notice(30))
    await agent.until_told("spot_terminate", 2)
    await agent.until_told("terminated", 2)


async def test_a_host_of_which_nothing_is_known_stays_down(
    agent: Agent, api: ScriptedApi, cloud: AwsPeer, image: str, port: int
):
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("uptodate")
    await cloud.put(cloud.spot, cloud.notice(3))
    await agent.until_told("terminated")
    cloud.faults[cloud.spot] = Fault.RESET
    await asyncio.sleep(30 * INTERVAL)
    assert not agent.containers()
    assert not await answers(port, "one")
    assert agent.words()[-1] == "spot_terminate"
