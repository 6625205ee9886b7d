"""A disk with no room for the next release: refused before it is pulled, and gone on with by itself."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.peers import apps
from tests.peers.agent import Agent, fetch
from tests.peers.api import ScriptedApi
from tests.peers.dockerd import PrivateEngine, private_engine
from tests.peers.fault_registry import FaultRegistry, fault_registry
from tests.peers.gitserver import (  # noqa: F401 - fixtures
    GitHTTPS,
    Repository,
    _https,
    https,
    repository,
)
from tests.peers.images import root_file_system
from tests.peers.netns import inside, listening
from tests.scenario.releases import document

MIB = 1 << 20
PORT = 8000
SERVER = {"Cmd": ["/usr/bin/perl", "/server.pl"], "Env": ["PATH=/bin"]}
FIGURES = r"it needs \d+ MiB of free disk, \d+ MiB are free"
PATIENCE = 40.0  # seconds; the pause after a failure is 10


def publish(registry: FaultRegistry, name: str, payload: int) -> str:
    return registry.publish(
        name, tar=root_file_system(apps.files()), payload=payload, config=SERVER
    )


def blobs_asked(registry: FaultRegistry) -> list[str]:
    """The layers that are one image's own."""
    return [path for _, path, _ in registry.requests if path.rpartition("/")[2] in registry.layers]


# --- the disk of Docker ---------------------------------------------------------------------------


@dataclass
class Small:
    """A whole host in a network namespace, with 200 MB for Docker."""

    agent: Agent
    engine: PrivateEngine
    docker: Any
    registry: FaultRegistry

    @property
    def filler(self) -> Path:
        return self.engine.data / "filler"

    def leave_free(self, size: int) -> None:
        disk = os.statvfs(self.engine.data)
        self.filler.write_bytes(bytes(disk.f_bavail * disk.f_frsize - size))

    def ask_for(self, name: str) -> None:
        """The API wants this image from now on."""
        self.agent.api.document = document(self.registry.reference(name), PORT, PAGE=name)

    def images(self) -> set[str]:
        return {image["Id"] for image in self.docker.images()}


@pytest.fixture
async def small(stack_id: str, tmp_path: Path) -> AsyncIterator[Small]:
    root = Path(tempfile.mkdtemp(prefix="almagent-test-"))  # a socket's path has to be short
    with private_engine(root, size="200m") as engine:
        place = engine.machine.path
        with (
            fault_registry(lambda: listening(place, "127.0.0.1", 0)) as registry,
            closing(engine.client()) as docker,
        ):
            api = ScriptedApi()
            with inside(place):
                await api.start()
            agent = Agent(tmp_path, api, stack_id, docker, namespace=place)
            agent.configure(docker={"host": engine.host}, deploy={"bake_time": 0.5})
            yield Small(agent, engine, docker, registry)
            await agent.clean_up()
            await api.stop()


async def test_an_image_that_does_not_fit_beside_what_is_there(small: Small):
    """What is free satisfies min_free_bytes; it is the image's size that does not fit."""
    agent, registry = small.agent, small.registry
    sizes = {"app:1": 12 * MIB, "app:2": 4096, "app:3": 16 * MIB, "app:4": 24 * MIB}
    oldest, *_ = [publish(registry, name, size) for name, size in sizes.items()]
    small.ask_for("app:1")
    await agent.start()
    await agent.until_told("uptodate", patience=PATIENCE)
    small.ask_for("app:2")
    await agent.until_told("uptodate", 2, patience=PATIENCE)
    await agent.until(lambda: len(agent.containers()) == 1, "the old one is removed", PATIENCE)
    assert oldest in small.images()  # one of the few that are kept

    small.leave_free(42 * MIB)
    small.ask_for("app:3")  # packed and unpacked it may take three times its size
    await agent.until_told("uptodate", 3, patience=PATIENCE)
    assert oldest not in small.images()
    assert "error" not in agent.words()
    await agent.until(lambda: len(agent.containers()) == 1, "the old one is removed", PATIENCE)
    (serving,) = agent.running()

    before = blobs_asked(registry)
    small.ask_for("app:4")
    await agent.until_told("error", patience=PATIENCE)
    assert re.search(FIGURES, agent.last_error())
    assert "app:4" in agent.last_error()
    assert blobs_asked(registry) == before
    assert [container["Id"] for container in agent.running()] == [serving["Id"]]

    small.filler.unlink()
    await agent.until_told("uptodate", 4, patience=PATIENCE)
    assert len(blobs_asked(registry)) == len(before) + 1


# --- the disk of STATE_DIR ------------------------------------------------------------------------


@pytest.fixture
def small_state(agent: Agent) -> Iterator[Path]:
    with agent.small_disk(40) as state:
        yield state


@pytest.fixture
async def registry(agent: Agent) -> AsyncIterator[FaultRegistry]:
    with fault_registry() as registry:
        yield registry
        await agent.clean_up()
        for image in registry.images_on(agent.engine):
            agent.engine.remove_image(image, force=True)


async def test_code_that_does_not_fit_beside_what_is_there(
    agent: Agent,
    port: int,
    small_state: Path,
    registry: FaultRegistry,
    https: GitHTTPS,  # noqa: F811
    repository: Repository,  # noqa: F811
):
    repository.commit({"index.html": "first"})
    publish(registry, "app:1", 4096)
    wanted = document(registry.reference("app:1"), port, CODE="/srv")
    wanted |= {"gitRepo": https.url(repository), "gitReference": "main", "codeDir": "/srv"}
    agent.api.document = wanted
    await agent.start()
    await agent.until_told("uptodate", patience=PATIENCE)
    (serving,) = agent.running()

    filler, before = small_state / "filler", blobs_asked(registry)
    filler.write_bytes(bytes(34 * MIB))
    repository.commit({"index.html": "second"})
    publish(registry, "app:2", 4096)
    agent.api.document = {**wanted, "image": registry.reference("app:2")}
    await agent.until_told("error", patience=PATIENCE)
    assert re.search(r"it needs more than \d+ bytes of disk, \d+ are free in ", agent.last_error())
    assert str(small_state) in agent.last_error()
    assert blobs_asked(registry) == before
    assert [container["Id"] for container in agent.running()] == [serving["Id"]]
    assert await fetch(port) == "one first"

    filler.unlink()
    await agent.until_told("uptodate", 2, patience=PATIENCE)
    assert await fetch(port) == "one second"
