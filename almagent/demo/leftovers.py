"""Takes away what an agent left on the machine, however it ended: routes, containers, network, image."""

from __future__ import annotations

import os
from pathlib import Path

from almagent.adapters.docker_engine import network
from almagent.adapters.docker_engine.door import LONG, EngineDoor
from almagent.adapters.docker_engine.labels import Owner
from almagent.adapters.engine import DockerEngine
from almagent.adapters.router import NftRouter
from almagent.wiring import table_name

DOCKER = "unix:///var/run/docker.sock"


def docker_host() -> str:
    return os.environ.get("DOCKER_HOST") or DOCKER


def engine_of(owner: Owner, state_dir: Path) -> DockerEngine:
    """The engine as the agent of that owner sees it; of the images that it pulled it keeps none."""
    return DockerEngine(
        host=docker_host(),
        stack_id=owner.stack_id,
        flag=owner.flag,
        user_id="",
        state_dir=state_dir,
        log_driver="json-file",
        log_opts={},
        min_free_bytes=0,
        keep_images=0,
    )


async def remove(owner: Owner, state_dir: Path) -> None:
    """Raises PortError when something stays."""
    engine, door = engine_of(owner, state_dir), EngineDoor(docker_host())
    router = NftRouter(table=table_name(owner.stack_id, owner.flag), bridge=lambda: owner.bridge)
    try:
        await router.clear()
        for container in await engine.observe():
            await engine.remove(container.id)
        await engine.collect(())
        await door.call("remove network", lambda c: network.remove_unused(c, owner), timeout=LONG)
    finally:
        engine.close()
        door.close()
