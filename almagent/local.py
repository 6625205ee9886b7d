"""What can be asked on this host: the unix socket, and over TCP, where wanted, what monitoring reads.

The socket is for root: mode 0660, bound under the agent's lock. TCP has neither status nor commands.

Of aiohttp's server only the protocol is used: four paths need no router, whose import is 1.5 MB of an idle
agent. A connection serves one request, and lasts a bounded time whatever its client does.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Self

import almagent.adapters.http_library  # noqa: F401  comes before all other parts of aiohttp
from almagent.core.frozen import frozen
from almagent.journal import logger

# isort: split
from aiohttp.web_protocol import RequestHandler, RequestPayloadError
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse
from aiohttp.web_server import Server

from almagent.ports import Refused, Unavailable
from almagent.socketpath import SOCKET, short_name
from almagent.status import Snapshot

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST = 64  # connections that a listener has at a time; one more is closed at once
PATIENCE = 15.0  # seconds that a connection lasts at most
BODY_LIMIT = 64 << 10  # bytes; nothing here needs any
GOODBYE = 0.3  # seconds that answers under way get at the end

Routes = Mapping[tuple[str, str], Callable[[], Response]]  # (method, path) -> what is answered
Handler = Callable[[BaseRequest], Awaitable[Response]]

log = logger()


@frozen
class Surface:
    """What is answered: each is called on the event loop and returns at once."""

    status: Callable[[], Snapshot]
    loops: Callable[[], dict[str, bool]]  # name -> whether it makes progress
    metrics: Callable[[], bytes]
    reconcile: Callable[[], None]
    stop: Callable[[], None]


class Local:
    """Listens while it is entered. Raises Refused: somebody else answers on the socket."""

    def __init__(
        self, directory: Path, surface: Surface, listen: str = "", patience: float = PATIENCE
    ) -> None:
        """`patience`: seconds that a connection lasts at most."""
        self._path = directory / SOCKET
        self._surface = surface
        self._listen = listen
        self._patience = patience
        self._servers: list[tuple[asyncio.Server, Server]] = []
        self._inode = 0

    async def __aenter__(self) -> Self:
        sock = bind(self._path)
        self._inode = self._path.stat().st_ino
        await self._serve(_handler(_all(self._surface)), sock)
        if self._listen:
            await self._listen_on_tcp(*_split(self._listen))
        return self

    async def __aexit__(self, *_exc: object) -> None:
        for listener, server in self._servers:
            listener.close()
            await asyncio.sleep(0)  # what has just arrived begins to be answered
            server.pre_shutdown()
            await server.shutdown(GOODBYE)
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
        routes = _monitored(self._surface)
        handler = _own_hosts_only(routes) if _is_loopback(host) else _handler(routes)
        await self._serve(handler, sock)

    async def _serve(self, handler: Handler, sock: socket.socket) -> None:
        server = _Server(_careful(handler), self._patience)
        listener = await asyncio.get_running_loop().create_server(server, sock=sock)
        self._servers.append((listener, server))


class _Server(Server):
    """aiohttp's, which by itself takes any number of connections, and waits without end for a client that does
    not read its answer, or sends the half of a body."""

    def __init__(self, handler: Handler, patience: float) -> None:
        quiet = logging.getLogger(__name__)
        quiet.disabled = True  # aiohttp tells it, with tracebacks, what clients do wrong
        super().__init__(
            handler,
            request_factory=partial(_Request, loop=asyncio.get_running_loop()),
            access_log=None,
            logger=quiet,
            auto_decompress=False,
            keepalive_timeout=0,  # seconds; `patience` is the bound
        )
        self._patience = patience
        self._ends: dict[RequestHandler, asyncio.TimerHandle] = {}

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        patience = self._patience if len(self.connections) <= MOST else 0.0
        self._ends[handler] = asyncio.get_running_loop().call_later(patience, transport.abort)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._ends.pop(handler).cancel()


class _Request(BaseRequest):
    async def _prepare_hook(self, response: StreamResponse) -> None:
        """Strangers need not know which versions answer."""
        response.headers.popall("Server", None)


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


def _all(surface: Surface) -> Routes:
    return {
        ("GET", "/v1/status"): lambda: _json(asdict(surface.status())),
        ("POST", "/v1/reconcile"): lambda: _accepted(surface.reconcile),
        ("POST", "/v1/stop"): lambda: _accepted(surface.stop),
        **_monitored(surface),
    }


def _monitored(surface: Surface) -> Routes:
    return {
        ("GET", "/healthz"): lambda: _health(surface.loops()),
        ("GET", "/metrics"): lambda: Response(
            body=surface.metrics(), headers={"Content-Type": METRICS_TYPE}
        ),
    }


def _health(loops: dict[str, bool]) -> Response:
    well = all(loops.values())
    late = [name for name, alive in loops.items() if not alive]
    return _json({"ok": well, "late": late, "loops": loops}, status=200 if well else 503)


def _accepted(do: Callable[[], None]) -> Response:
    do()
    return _json({"accepted": True}, status=202)


def _json(value: object, status: int = 200) -> Response:
    text = json.dumps(value) + "\n"
    return Response(text=text, status=status, content_type="application/json")


def _careful(answer: Handler) -> Handler:
    """Nothing is done before the whole request is there. A fault of ours is told, one of the client's is not."""

    async def handle(request: BaseRequest) -> Response:
        try:
            if await _body_dropped(request):
                response = await answer(request)
            else:
                response = Response(status=413, text="cannot take a body of this size\n")
        except (RequestPayloadError, ConnectionError):
            response = Response(status=400, text="cannot read the body\n")
        except Exception:
            log.exception("local.failed", path=request.path)
            response = Response(status=500, text="cannot answer: internal error\n")
        response.force_close()
        return response

    return handle


async def _body_dropped(request: BaseRequest) -> bool:
    """False: it is too large."""
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > BODY_LIMIT:
            return False
    return True


def _handler(routes: Routes) -> Handler:
    async def handle(request: BaseRequest) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        answer = routes.get((method, request.path))
        if answer is not None:
            return answer()
        allowed = [method for method, path in routes if path == request.path]
        if not allowed:
            return Response(status=404, text="cannot find this path\n")
        headers = {"Allow": ", ".join(allowed)}
        return Response(status=405, text="cannot take this method\n", headers=headers)

    return handle


def _own_hosts_only(routes: Routes) -> Handler:
    """A page in a browser of this host may send requests here under a name of its own."""
    answer = _handler(routes)

    async def handle(request: BaseRequest) -> Response:
        host = _split(request.host)[0] if ":" in request.host else request.host
        if not _is_loopback(host):
            return Response(status=403, text="cannot answer for this host name\n")
        return await answer(request)

    return handle


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port) if port.isdigit() else 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return host == "localhost"
