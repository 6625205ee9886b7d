"""Many releases in a row: what stays on the disk is bounded, and nothing of anybody else is removed."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.peers.agent import Agent, fetch
from tests.peers.api import ScriptedApi
from tests.peers.fault_registry import FaultRegistry, fault_registry
from tests.peers.gitserver import (  # noqa: F401 - fixtures
    GitHTTPS,
    Repository,
    _https,
    https,
    repository,
)
from tests.peers.images import root_file_system

RELEASES = 50
NOISE = 20_000  # bytes that each release adds to the code and that no packing makes smaller
KEEP_RELEASES, KEEP_IMAGES = 3, 2
SERVE = "trap 'exit 0' TERM; httpd -f -p $PORT -h /srv/app & wait"
CONFIG = {"Cmd": ["/bin/sh", "-c", SERVE], "Env": ["PATH=/bin"], "Volumes": {"/data": {}}}


@dataclass
class Host:
    agent: Agent
    registry: FaultRegistry

    @property
    def state(self) -> Path:
        return self.agent.directory / "state"

    def images(self) -> set[str]:
        return self.registry.images_on(self.agent.engine)

    def volumes(self) -> set[str]:
        mounts = [mount for one in self.agent.containers() for mount in one["Mounts"]]
        return {mount["Name"] for mount in mounts if mount["Type"] == "volume"}

    def exports(self) -> list[Path]:
        return [path for path in (self.state / "releases").iterdir() if "." not in path.name]

    def size(self) -> int:
        """Bytes below STATE_DIR, of files that do not vanish meanwhile."""
        total = 0
        for directory, _, names in os.walk(self.state):
            for name in names:
                with suppress(FileNotFoundError):
                    total += Path(directory, name).stat().st_size
        return total

    async def settled(self, foreign: int) -> None:
        """Until the agent has tidied up. `foreign`: images that are not its own any more."""
        expected = (1, foreign + 1 + KEEP_IMAGES, KEEP_RELEASES)

        def tidy() -> bool:
            counts = len(self.agent.containers()), len(self.images()), len(self.exports())
            return counts == expected

        await self.agent.until(tidy, "tidied up", 60)


@pytest.fixture
async def host(agent: Agent) -> AsyncIterator[Host]:
    agent.configure(
        deploy={"bake_time": 0.1, "drain_timeout": 1, "keep_releases": KEEP_RELEASES},
        docker={"keep_images": KEEP_IMAGES},
    )
    with fault_registry() as registry:
        host = Host(agent, registry)
        yield host
        await agent.clean_up()
        for image in host.images():
            agent.engine.remove_image(image, force=True)


@pytest.fixture
def standby(agent: Agent) -> Iterator[list[str]]:
    """Ids of containers that somebody else made; removed at the end."""
    made: list[str] = []
    yield made
    for container in made:
        agent.engine.remove_container(container, force=True, v=True)


@pytest.mark.timeout(600)
async def test_fifty_releases_leave_what_the_settings_allow(
    host: Host,
    standby: list[str],
    api: ScriptedApi,
    port: int,
    https: GitHTTPS,  # noqa: F811
    repository: Repository,  # noqa: F811
):
    agent, registry, base = host.agent, host.registry, root_file_system({})
    engine: Any = agent.engine
    # It shares a layer with all of ours.
    theirs = {registry.publish("theirs:1", tar=base, config=CONFIG)}
    engine.pull(registry.reference("theirs"), "1")
    volumes: set[str] = set()
    for number in range(1, RELEASES + 1):
        made = registry.publish(f"app:{number}", tar=base, config=CONFIG)
        repository.commit({"index.html": f"page {number}", "noise": os.urandom(NOISE)})
        api.document = {
            "image": registry.reference(f"app:{number}"),
            "gitRepo": https.url(repository),
            "gitReference": "main",
            "codeDir": "/srv/app",
            "environment_variables": {"PORT": str(port)},
            "ports": [port],
        }
        if agent.process is None:
            await agent.start()
        else:
            agent.process.send_signal(signal.SIGHUP)  # it asks at once
        await agent.until_told("uptodate", number, patience=60)
        volumes |= host.volumes()
        if number == 3:
            theirs.add(made)
            standby.append(engine.create_container(made, name=f"almagent-Web01-{port}")["Id"])
        elif number == 6:
            engine.tag(made, f"{registry.address}/mine", "1")
            theirs.add(made)
    await host.settled(foreign=len(theirs))
    assert await fetch(port) == f"page {RELEASES}"
    assert theirs <= host.images()
    assert engine.inspect_container(standby[0])["State"]["Status"] == "created"
    assert sum(1 for _ in (host.state / "logs").iterdir()) == 1
    await agent.until(lambda: host.size() < RELEASES * NOISE / 2, "the mirror packed", 30)
    there = {volume["Name"] for volume in engine.volumes()["Volumes"] or ()}
    assert volumes & there == host.volumes()
