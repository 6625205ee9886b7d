"""A candidate that the kernel ends for want of memory: the error names that cause, the old one serves on."""

from __future__ import annotations

import asyncio

import docker

from tests.peers.agent import Agent, fetch
from tests.peers.api import ScriptedApi
from tests.peers.apps import app
from tests.peers.images import Images
from tests.peers.load import Target, load
from tests.peers.registry import RunningRegistry
from tests.scenario.releases import document

LIMIT = 8 << 20  # bytes; a shell starts within that, and does not grow to twice as much
GREEDY = 'CMD ["sh", "-c", "sleep 1; x=0123456789abcdef; while :; do x=$x$x; done"]'


async def limited(agent: Agent, old: str) -> None:
    """Gives the candidate a limit as soon as there is one, as an operator or a small instance would."""
    while True:
        for container in agent.containers():
            if container["Id"] != old:
                try:
                    agent.engine.update_container(
                        container["Id"], mem_limit=LIMIT, memswap_limit=LIMIT
                    )
                except docker.errors.APIError:  # it has just been removed, or is about to start
                    continue
                else:
                    return
        await asyncio.sleep(0.02)


async def test_out_of_memory_is_the_cause_that_is_told(
    agent: Agent,
    api: ScriptedApi,
    shared_registry: RunningRegistry,
    images: Images,
    port: int,
):
    api.document = document(shared_registry.push(app(images), "app:1"), port, PAGE="old")
    await agent.start()
    await agent.until_told("uptodate")
    (old,) = agent.running()
    limiting = asyncio.create_task(limited(agent, old["Id"]))
    async with load(Target("127.0.0.1", port), rate=50) as (tally,):
        api.document = document(shared_registry.push(images.make(GREEDY), "greedy:1"), port)
        await agent.until_told("error")
        await asyncio.wait_for(limiting, 5)
        await agent.until(lambda: len(agent.containers()) == 1, "candidate removed")
    assert "out of memory, exit code 137" in agent.last_error()
    assert "keeps serving" in agent.last_error()
    assert [c["Id"] for c in agent.running()] == [old["Id"]]
    assert await fetch(port) == "old"
    assert not tally.lost, tally
