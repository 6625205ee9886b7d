"""The Engine port in memory: passes the same contract suite as the one over Docker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection

from almagent.adapters.docker_engine.create import check_environment
from almagent.core.imageref import ImageRefError, parse_image
from almagent.core.model import Container, RegistryLogin, Release, Spec
from almagent.ports import Evidence, Image, Progress, Refused, no_progress
from tests.fakes.daemon import KILL, TERM, Daemon


class MemoryEngine:
    def __init__(
        self,
        daemon: Daemon | None = None,
        *,
        stack_id: str = "stack",
        flag: str = "Web01",
        user_id: str = "",
        keep_images: int = 2,
    ) -> None:
        self.daemon = daemon or Daemon()
        self._owner = (stack_id, flag)
        self._own = {"MO_USER_ID": user_id, "MO_STACK_ID": stack_id}
        self._keep_images = keep_images

    async def observe(self) -> tuple[Container, ...]:
        self.daemon.check()
        records = [r for r in self.daemon.records.values() if r.owner == self._owner]
        return tuple(self.daemon.now(record) for record in records)

    async def pull(
        self, image: str, login: RegistryLogin | None, progress: Progress = no_progress
    ) -> Image:
        del login
        try:
            reference = parse_image(image)
        except ImageRefError as exc:
            raise Refused(f"cannot pull an image: {exc}") from exc
        pulled = self.daemon.pull(reference)
        progress(f"pull {reference}", 1, 1)
        return pulled

    async def create(self, spec: Spec, release: Release, *, publish: bool) -> str:
        check_environment(spec.environment)
        values = {name: value.reveal() for name, value in spec.environment.items()} | self._own
        return self.daemon.add(self._owner, spec, release, values, publish=publish)

    async def start(self, container_id: str) -> None:
        self.daemon.start(container_id)

    async def set_restart(self, container_id: str, *, always: bool) -> None:
        self.daemon.set_restart(container_id, always=always)

    async def terminate(self, container_id: str) -> None:
        self.daemon.check()
        if container_id in self.daemon.records:
            self.daemon.set_restart(container_id, always=False)
        self.daemon.signal(container_id, TERM)

    async def kill(self, container_id: str) -> None:
        self.daemon.signal(container_id, KILL)

    async def remove(self, container_id: str) -> None:
        self.daemon.remove(container_id)

    async def evidence(self, container_id: str) -> Evidence:
        record = self.daemon.get(container_id)
        return Evidence(record.shown.exit_code, record.shown.oom_killed, record.logs)

    async def run_hook(self, container_id: str, path: str, deadline: float) -> str:
        del deadline
        return self.daemon.get(container_id).program.hooks.get(path, "")

    def changes(self) -> AsyncIterator[str]:
        return self.daemon.changes(self._owner)

    async def collect(self, keep: Collection[str]) -> None:
        self.daemon.collect(keep, self._keep_images)
