"""Containers of other Docker networks call the service like everybody else: through releases and restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import docker
import pytest

from tests.conftest import SESSION
from tests.peers.agent import Agent
from tests.peers.api import ScriptedApi
from tests.peers.apps import app
from tests.peers.images import LABEL, Images
from tests.peers.load import Tally, Target, load, one
from tests.peers.netns import namespace_of
from tests.peers.registry import RunningRegistry
from tests.scenario.releases import document


@pytest.fixture
def neighbour(docker_api: docker.APIClient, images: Images, port: int) -> Iterator[Target]:
    """A client on Docker's default network, which calls the host by its address there."""
    image = images.make('CMD ["sleep", "3600"]')
    client = docker_api.create_container(image, labels={LABEL: SESSION})["Id"]
    docker_api.start(client)
    seen = docker_api.inspect_container(client)
    host = seen["NetworkSettings"]["Networks"]["bridge"]["Gateway"]
    yield Target(host, port, namespace_of(seen["State"]["Pid"]))
    docker_api.remove_container(client, force=True)


async def test_a_release_loses_no_request_of_another_network(
    agent: Agent,
    api: ScriptedApi,
    neighbour: Target,
    shared_registry: RunningRegistry,
    images: Images,
    port: int,
):
    image = shared_registry.push(app(images), "app:1")
    agent.configure(deploy={"drain_timeout": 1.5, "bake_time": 1}, api={"poll_interval": 0.3})
    api.document = document(image, port, PAGE="old")
    await agent.start()
    await agent.until_told("uptodate")
    async with load(neighbour, rate=50, kept=3) as tallies:
        api.document = document(image, port, PAGE="new")
        await agent.until_told("uptodate", 2)
        await asyncio.sleep(2)
    for tally in tallies:
        assert not tally.lost, tally
        assert set(tally.bodies) == {"old", "new"}, tally


async def test_a_container_that_docker_started_anew_is_found_again(
    agent: Agent,
    api: ScriptedApi,
    neighbour: Target,
    shared_registry: RunningRegistry,
    images: Images,
    port: int,
):
    api.document = document(shared_registry.push(app(images), "app:1"), port)
    await agent.start()
    await agent.until_told("uptodate")
    (container,) = agent.running()
    agent.engine.restart(container["Id"], timeout=1)
    async with asyncio.timeout(3):
        while not (tally := await asked(neighbour)).bodies:
            await asyncio.sleep(0.05)
    assert tally.bodies == {"one": 1}


async def asked(target: Target) -> Tally:
    tally = Tally("one")
    await one(tally, target)
    return tally
