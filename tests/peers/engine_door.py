"""Stands before the engine's socket and makes it unreachable, silent or cut, without touching the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

ENGINE = "/var/run/docker.sock"


class EngineDoor:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._open = asyncio.Event()  # cleared: bytes wait
        self._open.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def host(self) -> str:
        return f"unix://{self._path}"

    async def back(self) -> None:
        """There again, after `away`."""
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def away(self) -> None:
        """As when the engine has ended: connections cut, the socket gone."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._path.unlink(missing_ok=True)
        await self.cut()

    async def cut(self) -> None:
        """End all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def healthy(self) -> None:
        """Whatever was done to it is undone."""
        self.resume()
        if self._server is None:
            await self.back()

    def hang(self) -> None:
        """As when the engine was stopped by a signal: connections are taken, nothing is said."""
        self._open.clear()

    def resume(self) -> None:
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._connect(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        engine_reader, engine_writer = await asyncio.open_unix_connection(ENGINE)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, engine_writer))
                group.create_task(self._pump(engine_reader, writer))
        except* OSError:
            pass
        finally:
            engine_writer.close()
            with suppress(OSError):
                await engine_writer.wait_closed()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._open.wait()
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


@asynccontextmanager
async def engine_door(path: Path) -> AsyncIterator[EngineDoor]:
    door = EngineDoor(path)
    await door.back()
    try:
        yield door
    finally:
        door.resume()
        await door.away()
