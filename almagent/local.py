"""What can be asked on this host: the unix socket, and over TCP, where wanted, what monitoring reads.

The socket is for root: mode 0660, bound under the agent's lock. TCP has neither status nor commands.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import structlog
from aiohttp import web

from almagent.ports import Refused, Unavailable
from almagent.socketpath import SOCKET, short_name
from almagent.status import Snapshot

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BODY_LIMIT = 1024  # bytes; nothing here reads a body
IDLE = 15.0  # seconds that a connection is kept without a request
GOODBYE = 0.3  # seconds that answers under way get at the end

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Surface:
    """What is answered: each is called on the event loop and returns at once."""

    status: Callable[[], Snapshot]
    loops: Callable[[], dict[str, bool]]  # name -> whether it makes progress
    metrics: Callable[[], bytes]
    reconcile: Callable[[], None]
    stop: Callable[[], None]


class Local:
    """Listens while it is entered. Raises Refused: somebody else answers on the socket."""

    def __init__(self, directory: Path, surface: Surface, listen: str = "") -> None:
        self._path = directory / SOCKET
        self._surface = surface
        self._listen = listen
        self._runners: list[web.AppRunner] = []
        self._inode = 0

    async def __aenter__(self) -> Self:
        sock = bind(self._path)
        self._inode = self._path.stat().st_ino
        await self._serve(_application(self._surface), sock)
        if self._listen:
            await self._listen_on_tcp(*_split(self._listen))
        return self

    async def __aexit__(self, *_exc: object) -> None:
        for runner in self._runners:
            await runner.cleanup()
        with suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()

    async def _listen_on_tcp(self, host: str, port: int) -> None:
        """Monitoring is not worth an agent that does not start."""
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            sock = socket.create_server((host, port), family=family)
        except OSError as exc:
            log.error("metrics.not_listening", listen=self._listen, reason=exc.strerror)  # noqa: TRY400  expected
            return
        await self._serve(_monitoring(self._surface, host), sock)

    async def _serve(self, application: web.Application, sock: socket.socket) -> None:
        runner = web.AppRunner(
            application, access_log=None, keepalive_timeout=IDLE, shutdown_timeout=GOODBYE
        )
        await runner.setup()
        self._runners.append(runner)
        await web.SockSite(runner, sock).start()


def bind(path: Path) -> socket.socket:
    """A socket at `path`, 0660 from its first moment, in the place of a dead one.

    Raises Refused when a process answers there, Unavailable when it cannot be made.
    """
    if is_live(path):
        raise Refused(f"cannot listen on {path}: another process answers there")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    new = path.with_name(f"{path.name}.new")
    try:
        with short_name(new) as name:
            new.unlink(missing_ok=True)
            sock.bind(name)
        new.chmod(0o660)
        new.rename(path)
    except OSError as exc:
        sock.close()
        raise Unavailable(f"cannot listen on {path}: {exc.strerror or exc}") from exc
    return sock


def is_live(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            with short_name(path) as name:
                probe.connect(name)
        except BlockingIOError:  # its queue is full: it lives
            return True
        except OSError:
            return False
    return True


def _application(surface: Surface) -> web.Application:
    application = web.Application(client_max_size=BODY_LIMIT)
    application.add_routes(
        [
            web.get("/v1/status", _answer(lambda: asdict(surface.status()))),
            web.post("/v1/reconcile", _command(surface.reconcile)),
            web.post("/v1/stop", _command(surface.stop)),
            *_monitored(surface),
        ]
    )
    return application


def _monitoring(surface: Surface, host: str) -> web.Application:
    application = web.Application(
        client_max_size=BODY_LIMIT, middlewares=[_own_hosts_only] if _is_loopback(host) else []
    )
    application.add_routes(_monitored(surface))
    return application


def _monitored(surface: Surface) -> list[web.RouteDef]:
    async def healthz(_request: web.Request) -> web.Response:
        loops = surface.loops()
        well = all(loops.values())
        late = [name for name, alive in loops.items() if not alive]
        answer = {"ok": well, "late": late, "loops": loops}
        return web.json_response(answer, status=200 if well else 503, dumps=_dumps)

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=surface.metrics(), headers={"Content-Type": METRICS_TYPE})

    return [web.get("/healthz", healthz), web.get("/metrics", metrics)]


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _answer(ask: Callable[[], object]) -> Handler:
    async def handle(_request: web.Request) -> web.Response:
        return web.json_response(ask(), dumps=_dumps)

    return handle


def _command(do: Callable[[], None]) -> Handler:
    async def handle(_request: web.Request) -> web.Response:
        do()
        return web.json_response({"accepted": True}, status=202)

    return handle


def _dumps(value: object) -> str:
    return json.dumps(value) + "\n"


@web.middleware
async def _own_hosts_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A page in a browser of this host may send requests here under a name of its own."""
    host = _split(request.host)[0] if ":" in request.host else request.host
    if not _is_loopback(host):
        raise web.HTTPForbidden(text="cannot answer for this host name\n")
    return await handler(request)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port) if port.isdigit() else 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return host == "localhost"
