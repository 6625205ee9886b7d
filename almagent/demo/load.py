"""Clients that keep asking, and count each request that is not answered.

A client library would hide some failures by trying again. So this speaks HTTP/1.1 itself, and tries again
only where every library does: once, when a reused connection turns out to have been closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

ANSWER_WITHIN = 10.0  # seconds for one request
PAUSE = 0.01  # seconds between two requests of one client


class Unanswered(Exception):
    """No whole answer with status 200 came."""


class Closed(ConnectionError):
    """The connection was closed before any of the answer came."""


@dataclass(slots=True)
class Tally:
    """What one kind of client has met."""

    name: str
    sent: int = 0
    failed: int = 0
    first_failure: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """`clients` of one kind, each sending one request after the other."""

    name: str
    clients: int
    path: str = "/"
    keep_alive: bool = False


KINDS = (
    Kind("new connection each", 3),
    Kind("kept-alive connection", 3, keep_alive=True),
    Kind("one second long", 3, path="/slow/1"),
)


@dataclass
class Load:
    """Runs while its context lasts; every request that was begun is ended and counted."""

    url: str
    tallies: list[Tally] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for kind in KINDS:
            tally = Tally(kind.name)
            self.tallies.append(tally)
            self._tasks += [
                asyncio.create_task(self._client(kind, tally), name=f"load {kind.name}")
                for _ in range(kind.clients)
            ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:  # nobody will look at the numbers
            for task in self._tasks:
                task.cancel()
        self._over.set()
        await _ended(self._tasks)

    async def _client(self, kind: Kind, tally: Tally) -> None:
        client = Client(self.url, keep_alive=kind.keep_alive)
        try:
            while not self._over.is_set():
                tally.sent += 1
                try:
                    await client.get(kind.path)
                except Unanswered as exc:
                    tally.failed += 1
                    tally.first_failure = tally.first_failure or str(exc)
                await asyncio.sleep(PAUSE)
        finally:
            client.close()


class Client:
    """One client of one server."""

    def __init__(self, url: str, *, keep_alive: bool) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._keep_alive = keep_alive
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str) -> str:
        """The body of the answer. Raises Unanswered."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                if self._streams is not None:
                    with suppress(Closed):
                        return await self._exchange(path)
                return await self._exchange(path)
        except TimeoutError:
            raise Unanswered(f"no answer within {ANSWER_WITHIN:g} s") from None
        except (OSError, EOFError, ValueError) as exc:
            raise Unanswered(getattr(exc, "strerror", None) or str(exc)) from exc

    def close(self) -> None:
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()

    async def _exchange(self, path: str) -> str:
        """Whatever goes wrong, the connection is not used again."""
        streams, self._streams = self._streams, None
        reader, writer = streams or await asyncio.open_connection(self._host, self._port)
        whole = False
        try:
            how = "keep-alive" if self._keep_alive else "close"
            head = f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\nConnection: {how}\r\n\r\n"
            body = await _ask(reader, writer, head)
            whole = True
        finally:
            if whole and self._keep_alive:
                self._streams = reader, writer
            else:
                writer.close()
        return body


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> str:
    """Raises Closed; ValueError for an answer that is not 200 with a length."""
    try:
        writer.write(head.encode())
        await writer.drain()
        first = await reader.readexactly(1)
    except (OSError, EOFError) as exc:
        raise Closed("the connection was closed without an answer") from exc
    text = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status, *lines = text.strip().split("\r\n")
    if status.split()[1:2] != ["200"]:
        raise ValueError(status)
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return (await reader.readexactly(int(headers["content-length"]))).decode()


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task
