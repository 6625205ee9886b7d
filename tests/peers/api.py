"""A scripted ALM API on a real socket: it answers as told, well or badly, and records what it was asked.

Not the product's own control plane: it shares no code with it and knows ways to fail that no server
library offers. Untold, it behaves: tokens are checked, documents served, statuses acknowledged with 202.

    async with ScriptedApi() as api:
        api.script("/v3/alm/agent/config", reply(503, headers={"Retry-After": "2"}), cut())
"""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

TOKEN = "/v3/access_token"
CONFIG = "/v3/alm/agent/config"
AGENT_STATUS = "/v3/alm/agent/agent_status"
CONTAINER_STATUS = "/v3/alm/agent/container_status"
STATUSES = (AGENT_STATUS, CONTAINER_STATUS)

CHUNK = b"x" * 65536


@dataclass(frozen=True)
class Recorded:
    method: str
    target: str  # as on the request line; an absolute URL when we were used as a proxy
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    at: float  # monotonic

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Cut(Exception):
    """The connection is to be closed now."""


Behaviour = Callable[[Recorded, asyncio.StreamWriter], Awaitable[None]]


def reply(
    status: int = 200,
    body: bytes | object = b"",  # text as it is, anything else as JSON
    headers: Mapping[str, str] | None = None,
    delay: float = 0.0,
) -> Behaviour:
    raw = body if isinstance(body, bytes) else _text(body).encode()

    async def behave(_request: Recorded, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(delay)
        writer.write(_head(status, {"Content-Length": str(len(raw)), **(headers or {})}) + raw)
        await writer.drain()

    return behave


def _text(body: object) -> str:
    return body if isinstance(body, str) else json.dumps(body)


def redirect(to: str, status: int = 307) -> Behaviour:
    return reply(status, headers={"Location": to})


def cut(sent: bytes = b"") -> Behaviour:
    """Close the connection after `sent`, without an answer or in the middle of one."""

    async def behave(_request: Recorded, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        raise Cut

    return behave


def cut_body() -> Behaviour:
    return cut(_head(200, {"Content-Length": "1000"}) + b'{"image": "half')


def silence() -> Behaviour:
    async def behave(_request: Recorded, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    return behave


def drip(body: bytes, gap: float, status: int = 200) -> Behaviour:
    """A byte, a pause, a byte."""

    async def behave(_request: Recorded, writer: asyncio.StreamWriter) -> None:
        writer.write(_head(status, {"Content-Length": str(len(body))}))
        for byte in body:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(gap)

    return behave


def endless(status: int = 200) -> Behaviour:
    async def behave(_request: Recorded, writer: asyncio.StreamWriter) -> None:
        writer.write(_head(status, {"Connection": "close"}))
        while True:
            writer.write(CHUNK)
            await writer.drain()

    return behave


def gzip_bomb(size: int = 256 << 20) -> Behaviour:
    block = gzip.compress(bytes(1 << 20))  # members may follow each other
    return reply(200, block * (size >> 20), {"Content-Encoding": "gzip"})


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    labels = {"Content-Type": "application/json", **headers}
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in labels.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class ScriptedApi:
    """`script` queues behaviours for a path, one a request; `always` sets the one for the rest."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.requests: list[Recorded] = []
        self.document: object = {"image": "registry.example.com/app:1"}
        self.etag = ""
        self.expires_in: object = 43200
        self.valid_tokens: set[str] = set()
        self.issued = 0
        self.port = port
        self._tls = tls
        self._scripts: dict[str, deque[Behaviour]] = defaultdict(deque)
        self._always: dict[str, Behaviour] = {}
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        scheme, host = ("https", "localhost") if self._tls else ("http", "127.0.0.1")
        return f"{scheme}://{host}:{self.port}"

    def script(self, path: str, *behaviours: Behaviour) -> None:
        self._scripts[path].extend(behaviours)

    def always(self, path: str, behaviour: Behaviour | None) -> None:
        """None: behave well again."""
        if behaviour is None:
            self._always.pop(path, None)
        else:
            self._always[path] = behaviour

    def revoke_tokens(self) -> None:
        self.valid_tokens.clear()

    def asked(self, *paths: str) -> list[Recorded]:
        return [request for request in self.requests if request.path in paths]

    def words(self) -> list[str]:
        """The status words that arrived, acknowledged or not."""
        return [request.json["status"] for request in self.asked(*STATUSES)]

    async def quiet(self) -> None:
        """Until every connection has ended and all that came over it is recorded."""
        while self._connections:
            await asyncio.wait(self._connections)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """After `stop`: on the same port."""
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while (request := await _receive(reader)) is not None:
                self.requests.append(request)
                await self._behaviour(request)(request, writer)
        except (OSError, Cut, asyncio.IncompleteReadError, asyncio.CancelledError):
            if task.cancelling():
                writer.transport.abort()
        finally:
            self._connections.discard(task)
            writer.close()
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    def _behaviour(self, request: Recorded) -> Behaviour:
        scripted = self._scripts[request.path]
        if scripted:
            return scripted.popleft()
        return self._always.get(request.path) or self._well(request)

    def _well(self, request: Recorded) -> Behaviour:
        if request.path == TOKEN:
            return self._issue()
        if (
            request.headers.get("authorization", "").removeprefix("Bearer ")
            not in self.valid_tokens
        ):
            return reply(401)
        if request.path == CONFIG:
            return self._config(request)
        return reply(202) if request.path in STATUSES else reply(404)

    def _issue(self) -> Behaviour:
        self.issued += 1
        token = f"token-{self.issued}"
        self.valid_tokens.add(token)
        fields = {"token_type": "Bearer", "expires_in": self.expires_in, "access_token": token}
        return reply(200, fields)

    def _config(self, request: Recorded) -> Behaviour:
        if self.etag and request.headers.get("if-none-match") == self.etag:
            return reply(304, headers={"ETag": self.etag})
        return reply(200, self.document, {"ETag": self.etag} if self.etag else {})


async def _receive(reader: asyncio.StreamReader) -> Recorded | None:
    """None: the client has closed the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    method, target, _version = first.split(" ")
    pairs = (line.split(":", 1) for line in lines)
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Recorded(method, target, headers, body, time.monotonic())
