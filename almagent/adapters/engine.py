"""The Docker engine as the `Engine` port: this agent's containers, images and network."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any

from almagent.adapters.calls import OnCall, uncounted
from almagent.adapters.docker_engine import create, events, hook, lifecycle
from almagent.adapters.docker_engine.album import Album
from almagent.adapters.docker_engine.common import Common
from almagent.adapters.docker_engine.door import LONG, SHORT, EngineDoor
from almagent.adapters.docker_engine.images import Images
from almagent.adapters.docker_engine.labels import Owner
from almagent.adapters.docker_engine.observe import observe
from almagent.adapters.store import FileStore
from almagent.core.model import Container, RegistryLogin, Release, Spec
from almagent.ports import Evidence, Image, Progress, no_progress


class DockerEngine:
    """Containers of one stack and flag, found by their labels.

    It may be made before Docker runs: each call meets the engine anew and raises Unavailable until it
    answers.
    """

    def __init__(
        self,
        *,
        host: str,
        stack_id: str,
        flag: str,
        user_id: str,
        state_dir: Path,
        log_driver: str,
        log_opts: Mapping[str, str],
        min_free_bytes: int,
        keep_images: int,
        deadline: float = SHORT,
        pull_idle: float = 60.0,
        docker_config: Path | None = None,
        on_call: OnCall = uncounted,
    ) -> None:
        """`host` is in DOCKER_HOST's form. `deadline`: seconds for what Docker answers from memory.
        `pull_idle`: seconds a pull may go without any progress.

        `docker_config`: the file with the host's logins, None: where Docker looks for it.
        """
        self._owner = Owner(stack_id, flag)
        self._common = Common(self._owner, user_id, state_dir / "logs", log_driver, dict(log_opts))
        self._door = EngineDoor(host, deadline, on_call)
        self._images = Images(
            self._door,
            Album(FileStore(state_dir / "images.json")),
            min_free_bytes=min_free_bytes,
            keep_images=keep_images,
            idle=pull_idle,
            docker_config=docker_config,
        )

    @property
    def bridge_name(self) -> str:
        """The interface of the agent's network on this host; there once a container was created."""
        return self._owner.bridge

    def close(self) -> None:
        """Close idle connections. Calls and streams that still run end by themselves."""
        self._door.close()

    # --- containers ---

    async def observe(self) -> tuple[Container, ...]:
        logs = self._common.logs
        return await self._door.look("list containers", lambda c: observe(c, self._owner, logs))

    async def create(self, spec: Spec, release: Release, *, publish: bool) -> str:
        create.check_environment(spec.environment)
        create.check_mounts(release)
        abandoned = threading.Event()

        def make(client: Any) -> str:
            return create.create(
                client, self._common, spec, release, publish=publish, abandoned=abandoned
            )

        try:
            return await self._door.call("create a container", make, timeout=LONG)
        except BaseException:
            abandoned.set()
            raise

    async def start(self, container_id: str) -> None:
        what, common = f"start container {container_id[:12]}", self._common
        await self._door.call(
            what, lambda c: lifecycle.start(c, container_id, common), timeout=LONG
        )

    async def set_restart(self, container_id: str, *, always: bool) -> None:
        what = f"change the restart policy of container {container_id[:12]}"
        name = "always" if always else "no"
        await self._door.call(what, lambda c: lifecycle.set_restart(c, container_id, name))

    async def terminate(self, container_id: str) -> None:
        what = f"stop container {container_id[:12]}"
        await self._door.call(what, lambda c: lifecycle.terminate(c, container_id), timeout=LONG)

    async def kill(self, container_id: str) -> None:
        what = f"kill container {container_id[:12]}"
        await self._door.call(what, lambda c: lifecycle.kill(c, container_id), timeout=LONG)

    async def remove(self, container_id: str) -> None:
        what, common = f"remove container {container_id[:12]}", self._common
        await self._door.call(
            what, lambda c: lifecycle.remove(c, container_id, common), timeout=LONG
        )

    async def evidence(self, container_id: str) -> Evidence:
        what = f"read the end of container {container_id[:12]}"
        return await self._door.call(what, lambda c: lifecycle.evidence(c, container_id))

    async def run_hook(self, container_id: str, path: str, deadline: float) -> str:
        return await hook.run(self._door, container_id, path, deadline)

    def changes(self) -> AsyncIterator[str]:
        return events.watch(self._door, self._owner)

    # --- images ---

    async def pull(
        self, image: str, login: RegistryLogin | None, progress: Progress = no_progress
    ) -> Image:
        return await self._images.pull(image, login, progress)

    async def collect(self, keep: Collection[str]) -> None:
        await self._images.collect(keep)
        what = "sweep what vanished containers left"
        await self._door.call(what, lambda c: lifecycle.sweep(c, self._common), timeout=LONG)
