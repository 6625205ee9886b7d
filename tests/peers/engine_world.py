"""The world around an Engine: Docker with a registry and a socket that can go away, or one in memory."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import docker

from almagent.adapters.engine import DockerEngine
from almagent.core.model import Container, Release, State
from almagent.ports import Engine, Unavailable
from tests.fakes.daemon import Daemon
from tests.fakes.engine import MemoryEngine
from tests.peers.engine_door import EngineDoor, engine_door
from tests.peers.fault_registry import Fault, FaultRegistry, fault_registry
from tests.peers.images import root_file_system

RUN = "while :; do sleep 0.05; done"
MIB = 1 << 20


@dataclass(frozen=True)
class What:
    """An image to publish."""

    ports: tuple[int, ...] = (80,)
    labels: Mapping[str, str] = field(default_factory=dict)
    exits: int | None = None  # it ends at once with this code
    heeds_stop: bool = True
    status_word: str | None = None
    hooks: Mapping[str, str] = field(default_factory=dict)  # path -> what it prints


@dataclass
class World:
    make: Callable[[str], Engine]  # an agent's engine for a flag, as after a restart
    publish: Callable[[str, What], str]  # name -> reference
    break_pulls: Callable[[str], None]  # of a reference
    crash: Callable[[Container], Awaitable[None]]  # its process ends by itself
    vanish: Callable[[Container], Awaitable[None]]  # somebody else removes it
    away: Callable[[], Awaitable[None]]
    back: Callable[[], Awaitable[None]]


async def until(
    engine: Engine, condition: Callable[[Container], bool], container_id: str, patience: float = 10
) -> Container:
    """The container, once it is as described."""
    async with asyncio.timeout(patience):
        while True:
            for one in await engine.observe():
                if one.id == container_id and condition(one):
                    return one
            await asyncio.sleep(0.02)


def is_running(container: Container) -> bool:
    return container.state is State.RUNNING


def has_ended(container: Container) -> bool:
    return container.state is State.EXITED


def release(image_id: str, image: str, **changes: Any) -> Release:
    values: dict[str, Any] = {
        "revision": "0123456789abcdef",
        "image": image,
        "image_id": image_id,
        "image_digest": "",
        "commit": "",
        "code_path": "",
        "code_dir": "",
        "init_script": "",
        "ports": (80,),
    }
    return Release(**(values | changes))


# --- in memory ------------------------------------------------------------------------------------


@asynccontextmanager
async def memory_world() -> AsyncIterator[World]:
    daemon = Daemon()

    def publish(name: str, what: What) -> str:
        reference = f"registry.example/{name}"
        daemon.publish(
            reference,
            ports=what.ports,
            labels=what.labels,
            exits=what.exits,
            heeds_stop=what.heeds_stop,
            status_word=what.status_word,
            hooks=what.hooks,
        )
        return reference

    def break_pulls(reference: str) -> None:
        daemon.faults[reference] = Unavailable(f"cannot pull {reference}: it breaks off")

    async def crash(container: Container) -> None:
        daemon.crash(container.id)

    async def vanish(container: Container) -> None:
        daemon.vanish(container.id)

    async def away() -> None:
        daemon.go_away()

    async def back() -> None:
        daemon.come_back()

    def make(flag: str) -> Engine:
        return MemoryEngine(daemon, flag=flag, keep_images=1)

    yield World(make, publish, break_pulls, crash, vanish, away, back)


# --- Docker ---------------------------------------------------------------------------------------


def docker_engine(state_dir: Path, host: str, stack_id: str, **changes: Any) -> DockerEngine:
    values: dict[str, Any] = {
        "flag": "Web01",
        "user_id": "5447820c870e1",
        "log_driver": "json-file",
        "log_opts": {"max-size": "1m", "max-file": "2"},
        "min_free_bytes": MIB,
        "keep_images": 1,
        "docker_config": state_dir / "no-config.json",
    }
    return DockerEngine(host=host, stack_id=stack_id, state_dir=state_dir, **(values | changes))


@cache
def _root(hooks: tuple[tuple[str, str], ...]) -> bytes:
    return root_file_system({path: f"#!/bin/sh\necho {text}\n" for path, text in hooks})


def publish(registry: FaultRegistry, name: str, what: What) -> str:
    """An image that runs; its reference."""
    steps = [f"echo {what.status_word} >/var/log/container_status"] if what.status_word else []
    steps.append("trap 'exit 143' TERM" if what.heeds_stop else "trap '' TERM")
    steps.append(RUN if what.exits is None else f"echo going; exit {what.exits}")
    config = {
        "Cmd": ["/bin/sh", "-c", "\n".join(steps)],
        "Env": ["PATH=/bin"],
        "ExposedPorts": {f"{port}/tcp": {} for port in what.ports},
        "Labels": dict(what.labels),
    }
    registry.publish(name, tar=_root(tuple(what.hooks.items())), config=config)
    return registry.reference(name)


@dataclass
class Docker:
    """A real engine behind a door, with a registry, for one test."""

    api: Any
    door: EngineDoor
    registry: FaultRegistry
    stack_id: str
    state_dir: Path
    engines: list[DockerEngine] = field(default_factory=list)

    def make(self, flag: str = "Web01", **changes: Any) -> DockerEngine:
        engine = docker_engine(
            self.state_dir / flag, self.door.host, self.stack_id, flag=flag, **changes
        )
        self.engines.append(engine)
        return engine

    async def clean(self) -> None:
        for engine in self.engines:
            for container in await engine.observe():
                await engine.remove(container.id)
            await engine.collect([])
            engine.close()
        for image in self.registry.images_on(self.api):
            self.api.remove_image(image, force=True)


@asynccontextmanager
async def docker_around(
    api: docker.APIClient, stack_id: str, state_dir: Path
) -> AsyncIterator[Docker]:
    with fault_registry() as registry:
        async with engine_door(state_dir / "docker.sock") as door:
            around = Docker(api, door, registry, stack_id, state_dir)
            try:
                yield around
            finally:
                await door.healthy()
                await around.clean()


@asynccontextmanager
async def docker_world(
    api: docker.APIClient, stack_id: str, state_dir: Path
) -> AsyncIterator[World]:
    async with docker_around(api, stack_id, state_dir) as around:

        def break_pulls(_reference: str) -> None:
            around.registry.fault = Fault.BLOB_404

        async def crash(container: Container) -> None:
            os.kill(container.pid, signal.SIGKILL)

        async def vanish(container: Container) -> None:
            api.remove_container(container.id, force=True)

        def publish_here(name: str, what: What) -> str:
            return publish(around.registry, name, what)

        yield World(
            around.make,
            publish_here,
            break_pulls,
            crash,
            vanish,
            around.door.away,
            around.door.back,
        )
