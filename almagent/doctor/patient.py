"""What the checks look at. Each answer that several of them need is fetched once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from almagent.adapters.alm.peer import peer
from almagent.adapters.api import Transport, transport
from almagent.adapters.calls import uncounted
from almagent.adapters.docker_engine.door import EngineDoor
from almagent.core import wire
from almagent.core.frozen import frozen
from almagent.ports import PortError
from almagent.settings import Settings
from almagent.settings_load import Loaded

UNITS = ("/etc/systemd/system", "/usr/lib/systemd/system")
CALL = 4.0  # seconds for one answer of a neighbour


@frozen
class Engine:
    """What Docker says of itself. `containers`: all of this host, as its API lists them."""

    version: str
    api: str
    root: Path
    containers: tuple[Mapping[str, Any], ...]


class Patient:
    """One host and its settings."""

    def __init__(self, loaded: Loaded, *, again: str, known: bool, root: Path) -> None:
        """`again`: the command that looks anew. `known`: the settings are this host's, not the defaults.
        `root` is where its files are; tests have one of their own."""
        self.loaded = loaded
        self.again = again
        self.known = known
        self.root = root
        self._login: asyncio.Task[wire.Answer] | None = None
        self._document: asyncio.Task[wire.Answer] | None = None
        self._engine: asyncio.Task[Engine] | None = None
        self._transport: Transport | None = None

    async def close(self) -> None:
        """Nothing is asked after it."""
        if self._transport is not None:
            await self._transport.close()

    @property
    def after_change(self) -> str:
        """The command to give when settings were changed."""
        if self.has_service("almagent"):
            return "systemctl try-reload-or-restart almagent"
        return self.again

    def has_service(self, name: str) -> bool:
        return any(self.path(f"{place}/{name}.service").exists() for place in UNITS)

    @property
    def settings(self) -> Settings:
        return self.loaded.settings

    def path(self, absolute: str) -> Path:
        return self.root / absolute.lstrip("/")

    async def login(self) -> wire.Answer:
        """The API's answer to our credentials, whatever it is. Raises PortError: there is none."""
        if self._login is None:
            self._login = asyncio.create_task(self._ask_api(wire.login(*self._credentials())))
        return await asyncio.shield(self._login)

    async def document(self) -> bytes:
        """b"": nothing is defined. Raises PortError, WireError."""
        if self._document is None:
            self._document = asyncio.create_task(self._ask_document())
        document = wire.read_document(await asyncio.shield(self._document), conditional=False)
        return document.body if document else b""

    async def engine(self) -> Engine:
        """Raises PortError."""
        if self._engine is None:
            self._engine = asyncio.create_task(self._ask_docker())
        return await asyncio.shield(self._engine)

    def _credentials(self) -> tuple[str, Any]:
        return self.settings.api.client_id, self.settings.api.client_secret

    async def _ask_document(self) -> wire.Answer:
        token = wire.read_token(await self.login()).secret.reveal()
        request = wire.ask_document(self.settings.stack_id, self.settings.flag, "")
        return await self._ask_api(request, token)

    async def _ask_api(self, request: wire.Request, token: str = "") -> wire.Answer:
        if self._transport is None:
            self._transport = self._make_transport()
        try:
            async with asyncio.timeout(CALL):
                return await self._transport.send(request, token)
        except TimeoutError as exc:
            text = f"cannot {request.purpose}: no answer within {CALL:g} s"
            raise PortError(text) from exc

    def _make_transport(self) -> Transport:
        s = self.settings.api
        where = peer(s.url, str(s.ca_file or ""), "almagent-doctor")
        return transport(where, timeout=CALL, on_call=uncounted, brief=True)

    async def _ask_docker(self) -> Engine:
        door = EngineDoor(self.settings.docker.host, CALL)

        def ask(client: Any) -> Engine:
            version, info = client.version(), client.info()
            return Engine(
                version=version["Version"],
                api=version["ApiVersion"],
                root=Path(info["DockerRootDir"]),
                containers=tuple(client.containers(all=True)),
            )

        try:
            return await door.look("ask the Docker engine", ask)
        finally:
            door.close()
