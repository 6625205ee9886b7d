"""HTTP clients that count what they lose: new connections at a rate, and kept-alive ones.

A kept-alive client does as HTTP libraries do: when a reused connection turns out closed, it tries once more.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.peers.netns import HERE, unconnected

PATIENCE = 8.0  # seconds for one request


@dataclass
class Tally:
    name: str
    sent: int = 0
    lost: list[str] = field(default_factory=list)
    bodies: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0

    def __str__(self) -> str:
        return f"{self.name}: {self.sent} sent, {len(self.lost)} lost {self.lost[:3]}"


@dataclass(frozen=True)
class Target:
    host: str
    port: int
    namespace: Path = HERE
    path: str = "/"


class Lost(Exception):
    """No complete 200 came."""


async def connect(target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    sock = unconnected(target.namespace)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, (target.host, target.port))
        return await asyncio.open_connection(sock=sock)
    except BaseException:
        sock.close()
        raise


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, *, keep: bool
) -> str:
    """Raises Lost, or ConnectionResetError when the connection was closed before any answer."""
    how = "keep-alive" if keep else "close"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: {how}\r\n\r\n".encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as exc:
        if exc.partial:
            raise Lost("cut in the head") from exc
        raise ConnectionResetError("closed") from exc
    if not head.startswith(b"HTTP/1.1 200"):
        raise Lost(head.split(b"\r\n")[0].decode(errors="replace"))
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    try:
        return (await reader.readexactly(length)).decode()
    except (asyncio.IncompleteReadError, OSError) as exc:
        raise Lost("cut in the body") from exc


async def one(tally: Tally, target: Target) -> None:
    """One request over a connection of its own."""
    tally.sent += 1
    began = time.monotonic()
    writer = None
    try:
        async with asyncio.timeout(PATIENCE + (6 if target.path != "/" else 0)):
            reader, writer = await connect(target)
            body = await exchange(reader, writer, target.path, keep=False)
            tally.bodies[body] = tally.bodies.get(body, 0) + 1
    except (OSError, Lost, TimeoutError) as exc:
        tally.lost.append(f"{type(exc).__name__} {exc}")
    finally:
        tally.slowest = max(tally.slowest, time.monotonic() - began)
        await _close(writer)


async def new_connections(tally: Tally, target: Target, rate: float) -> None:
    """Open loop: a request every 1/rate seconds, whatever became of the others."""
    async with asyncio.TaskGroup() as group:
        at = time.monotonic()
        try:
            while True:
                group.create_task(one(tally, target))
                at += 1 / rate
                await asyncio.sleep(max(0.0, at - time.monotonic()))
        except asyncio.CancelledError:
            return  # those under way end by themselves


async def kept_alive(tally: Tally, target: Target, pause: float = 0.05) -> None:
    connection = None
    try:
        while True:
            tally.sent += 1
            try:
                async with asyncio.timeout(PATIENCE):
                    connection = await _reuse(tally, target, connection)
            except (OSError, Lost, TimeoutError) as exc:
                tally.lost.append(f"{type(exc).__name__} {exc}")
                await _close(connection[1] if connection else None)
                connection = None
            await asyncio.sleep(pause)
    except asyncio.CancelledError:
        return
    finally:
        await _close(connection[1] if connection else None)


async def _reuse(tally: Tally, target: Target, connection):
    for last_try in (False, True):
        reused = connection is not None
        if connection is None:
            connection = await connect(target)
        try:
            reader, writer = connection
            body = await exchange(reader, writer, target.path, keep=True)
        except (ConnectionResetError, BrokenPipeError):
            await _close(connection[1])
            connection = None
            if last_try or not reused:
                raise
        else:
            tally.bodies[body] = tally.bodies.get(body, 0) + 1
            return connection
    raise AssertionError("not reached")


async def _close(writer: asyncio.StreamWriter | None) -> None:
    if writer is not None:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def load(target: Target, *, rate: float = 200, kept: int = 0) -> AsyncIterator[list[Tally]]:
    """While the block runs; those in flight at its end are awaited."""
    tallies = [Tally(f"new {target.host}")]
    tasks = [asyncio.create_task(new_connections(tallies[0], target, rate))]
    if kept:
        tallies.append(Tally(f"kept {target.host}"))
        tasks += [asyncio.create_task(kept_alive(tallies[1], target)) for _ in range(kept)]
    try:
        yield tallies
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
