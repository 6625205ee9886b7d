"""A host with everything an agent needs: engine, registry, API. The agent itself is a child process."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator

import docker
import pytest

from tests.peers.agent import Agent
from tests.peers.api import ScriptedApi
from tests.peers.apps import app
from tests.peers.images import Images
from tests.peers.registry import RunningRegistry, registry


@pytest.fixture(scope="session")
def shared_registry(
    docker_api: docker.APIClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningRegistry]:
    with registry(docker_api, tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def image(shared_registry: RunningRegistry, images: Images) -> str:
    """An app that answers at once, in the registry."""
    return shared_registry.push(app(images), "app:1")


@pytest.fixture
async def api() -> AsyncIterator[ScriptedApi]:
    async with ScriptedApi() as scripted:
        yield scripted


@pytest.fixture
async def agent(
    api: ScriptedApi, docker_api: docker.APIClient, stack_id: str, tmp_path
) -> AsyncIterator[Agent]:
    made = Agent(tmp_path, api, stack_id, docker_api)
    yield made
    await made.clean_up()


@pytest.fixture
def port() -> int:
    """A TCP port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        number: int = sock.getsockname()[1]
        return number
