"""What the story happens on: everything around the agent, the agent, and how to look at it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from almagent.adapters.docker_engine.labels import Owner
from almagent.controlplane.server import ControlPlaneServer
from almagent.controlplane.store.stacks import Stack
from almagent.controlplane.store.statuses import Received
from almagent.demo import leftovers
from almagent.demo.agent import Agent
from almagent.demo.cloud import Cloud
from almagent.demo.errors import DemoError
from almagent.demo.image import CODE_DIR
from almagent.demo.load import Client, Unanswered
from almagent.demo.repository import Repository
from almagent.demo.screen import Screen

T = TypeVar("T")

FLAG = "Web01"
PATIENCE = 40.0  # seconds for anything that the agent is waited for; on an idle machine it takes under five
LOOK_EVERY = 0.1  # seconds


@dataclass
class Stage:
    screen: Screen
    control_plane: ControlPlaneServer
    stack: Stack
    repository: Repository
    repository_url: str
    image: str  # reference
    cloud: Cloud
    agent: Agent
    port: int  # of this machine, where the page will be
    begun: float  # seconds since the epoch

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def owner(self) -> Owner:
        return Owner(self.stack.stack_id, FLAG)

    # --- what is done ---

    async def release(self, files: Mapping[str, str], greeting: str) -> int:
        """Commit the code and update the template; the id of the last status call before that."""
        commit = await self.repository.commit(files)
        before = self.heard()[-1].id if self.heard() else 0
        container = {
            "image": self.image,
            "gitRepo": self.repository_url,
            "gitReference": commit,
            "codeDir": CODE_DIR,
            "environment_variables": {"PORT": str(self.port), "GREETING": greeting},
            "ports": [self.port],
        }
        self.control_plane.update_template(self.stack.stack_id, template(container))
        self.screen.tick(f"template applied: code {commit[:8]}, GREETING={greeting!r}")
        return before

    # --- what is seen ---

    def heard(self, after: int = 0) -> list[Received]:
        """The status calls that the control plane received, the oldest first."""
        return self.control_plane.store.statuses.of(self.stack.stack_id, after)

    async def hear(self, word: str, after: int = 0, container: str = "") -> Received:
        """The first such status call, and a tick for it. Raises DemoError."""

        async def check() -> Received | None:
            fit = (
                call
                for call in self.heard(after)
                if call.report.status == word and (call.report.container_id or "") == container
            )
            return next(fit, None)

        who = f"container {container[:12]}" if container else "the agent"
        call = await self.until(f"{who} says {word}", check)
        message = f": {call.report.message}" if call.report.message else ""
        self.screen.tick(f"{who} says {word}{message}")
        return call

    async def see(self, page: str) -> None:
        """Wait until the page has that text, and show it. Raises DemoError."""
        begun = time.monotonic()

        async def check() -> str:
            text = await self.page()
            return text if page in text else ""

        text = await self.until(f"{self.url} shows {page!r}", check)
        self.screen.tick(f"{self.url} answers after {time.monotonic() - begun:.1f} s:")
        self.screen.quote(text)

    async def page(self) -> str:
        """What is answered now; "" without an answer."""
        client = Client(self.url, keep_alive=False)
        try:
            return await client.get("/")
        except Unanswered:
            return ""

    def serving(self) -> str:
        """The id of the container that was last said to be running."""
        running = (c.report for c in reversed(self.heard()) if c.report.status == "running")
        return next(running).container_id or ""

    async def containers(self) -> int:
        """How many the agent has, in whatever state. Raises PortError."""
        engine = leftovers.engine_of(self.owner, self.agent.state_dir)
        try:
            return len(await engine.observe())
        finally:
            engine.close()

    async def until(self, what: str, check: Callable[[], Awaitable[T | None]]) -> T:
        """The first answer of `check` that is true. Raises DemoError."""
        self.screen.waiting(what)
        try:
            async with asyncio.timeout(PATIENCE):
                while not (answer := await check()):
                    if end := self.agent.how_it_ended():
                        raise DemoError(f"cannot see that {what}: the agent has ended ({end})")
                    await asyncio.sleep(LOOK_EVERY)
        except TimeoutError:
            raise DemoError(f"cannot see within {PATIENCE:g} s that {what}") from None
        return answer


def template(container: Mapping[str, object] | None = None) -> dict[str, object]:
    layer = {"role": "web", "flag": FLAG} | ({"container": container} if container else {})
    return {"version": "2017-03-03", "label": "demo", "configurations": [layer]}
