"""Sets the stage: everything around the agent is started, and the agent is given its settings."""

from __future__ import annotations

import secrets
import socket
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from almagent.adapters import router
from almagent.adapters.docker_engine.labels import Owner
from almagent.controlplane.server import ControlPlaneServer
from almagent.demo import image, leftovers, registry, repository
from almagent.demo.agent import Agent
from almagent.demo.cloud import Cloud
from almagent.demo.errors import DemoError
from almagent.demo.repository import Repository
from almagent.demo.screen import Screen
from almagent.demo.serving import served
from almagent.demo.stage import FLAG, Stage, template
from almagent.ports import PortError

PORTS = range(20000, 30000)  # below those that the kernel gives to clients


class Scenery:
    """`undo` takes away what is set up, in reverse order."""

    def __init__(self, screen: Screen, undo: AsyncExitStack) -> None:
        self._screen = screen
        self._undo = undo

    async def set_up(self) -> Stage:
        """Raises DemoError, PortError, CannotOpen, OSError."""
        await self._check_machine()
        home = Path(self._undo.enter_context(tempfile.TemporaryDirectory(prefix="almagent-demo-")))
        control_plane = await self._serve_api(home)
        image_reference = await self._serve_image()
        code, code_url, certificate = await self._serve_code(home)
        cloud, cloud_url = await self._serve_metadata()
        stack = control_plane.apply_template(template())
        agent = Agent(home, {"GIT_SSL_CAINFO": str(certificate)})
        agent.configure(
            stack_id=stack.stack_id,
            flag=FLAG,
            api_url=control_plane.url,
            client_secret=stack.auth_token,
            cloud_url=cloud_url,
        )
        owner = Owner(stack.stack_id, FLAG)
        self._undo.push_async_callback(leftovers.remove, owner, agent.state_dir)
        self._undo.push_async_callback(agent.stop)
        return Stage(
            screen=self._screen,
            control_plane=control_plane,
            stack=stack,
            repository=code,
            repository_url=code_url,
            image=image_reference,
            cloud=cloud,
            agent=agent,
            port=_free_port(),
            begun=time.time(),
        )

    async def _check_machine(self) -> None:
        """Raises DemoError for a machine that the story cannot be told on."""
        engine = leftovers.engine_of(Owner("demo", "demo"), Path(tempfile.gettempdir()))
        try:
            await engine.observe()
        except PortError as exc:
            raise DemoError(f"{exc}; the demo needs one that runs on this machine") from exc
        finally:
            engine.close()
        self._screen.tick("the Docker engine answers")
        reason = await router.supported()
        if reason is not None:
            raise DemoError(f"{reason}; without it a switch loses requests")
        self._screen.tick("nftables can be used")

    async def _serve_api(self, home: Path) -> ControlPlaneServer:
        server = ControlPlaneServer(home / "controlplane.db")
        await self._undo.enter_async_context(server)
        self._screen.tick(f"control plane: {server.url}")
        return server

    async def _serve_image(self) -> str:
        """Its reference. An image that nobody else has: it can be removed afterwards."""
        made = image.build(mark=secrets.token_hex(8))
        host = await self._undo.enter_async_context(served(registry.application(made)))
        reference = f"{host}/{registry.NAME}"
        self._screen.tick(f"image: {reference}, {made.size / 1e6:.1f} MB")
        return reference

    async def _serve_code(self, home: Path) -> tuple[Repository, str, Path]:
        """An empty repository, its URL, and the certificate that its server can be known by."""
        certificate, context = await repository.make_certificate(home)
        code = Repository(home / "git")
        await code.make()
        host = await self._undo.enter_async_context(served(repository.application(code), context))
        url = f"https://{host}/{repository.NAME}"
        self._screen.tick(f"repository: {url}")
        return code, url, certificate

    async def _serve_metadata(self) -> tuple[Cloud, str]:
        cloud = Cloud()
        host = await self._undo.enter_async_context(served(cloud.application()))
        self._screen.tick(f"instance metadata: http://{host}, as on an EC2 spot instance")
        return cloud, f"http://{host}"


def _free_port() -> int:
    """One that no socket has. Rules of other agents do not show; choosing at random keeps off them."""
    while True:
        port = PORTS.start + secrets.randbelow(len(PORTS))
        with socket.socket() as sock:
            try:
                sock.bind(("0.0.0.0", port))  # noqa: S104  asks whether any address has it
            except OSError:
                continue
        return port
