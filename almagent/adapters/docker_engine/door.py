"""Every call to the Docker engine goes through here: a thread, a client of its own, a deadline.

A call that is given up keeps its client until the client's idle limit ends it; nobody else meets it.
An engine that was away or hung is thus met again with a new connection, without any restart.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from almagent.adapters.calls import SILENT, OnCall, uncounted
from almagent.adapters.threads import Door
from almagent.ports import PortError, Refused, Unavailable

if TYPE_CHECKING:
    from almagent.adapters.docker_engine.client import Client

T = TypeVar("T")

SHORT = 10.0  # seconds for what the engine answers from memory
LONG = 60.0  # seconds for what it does with disks, networks and processes
MAX_SPARE = 4  # clients kept for the next call; more only while more calls run at once


class EngineDoor:
    """Runs functions that take a client, off the event loop."""

    def __init__(self, host: str, deadline: float = SHORT, on_call: OnCall = uncounted) -> None:
        """`deadline`: seconds for a call that asks for no other. `on_call` hears of each: its name, and ok,
        refused, failed or silent."""
        self.host = host
        self._on_call = on_call
        self._deadline = deadline
        self._door = Door("docker")
        self._spare: list[Client] = []
        self._lock = threading.Lock()
        self._version: str | None = None  # of the API, as negotiated; asked again after a failure

    async def call(
        self,
        what: str,
        fn: Callable[[Any], T],
        *,
        name: str = "",
        timeout: float | None = None,
    ) -> T:
        """What `fn(client)` returns. `what` completes "cannot ..." in the errors: Refused, Unavailable.

        `name`: by which it is counted, the first word of `what` unless told.
        """
        return await self._ask(self._run, what, fn, name, timeout or self._deadline)

    async def look(self, what: str, fn: Callable[[Any], T]) -> T:
        """As `call`, for what `reader` can do: over a unix socket it needs no SDK."""
        run = self._run_reader if self.host.startswith("unix://") else self._run
        return await self._ask(run, what, fn, "", self._deadline)

    async def _ask(
        self,
        run: Callable[[str, Callable[[Any], T], float], T],
        what: str,
        fn: Callable[[Any], T],
        name: str,
        timeout: float,
    ) -> T:
        with self.counted(name or what.partition(" ")[0]):
            try:
                return await self._door.call(run, what, fn, timeout, timeout=timeout)
            except TimeoutError as exc:
                self.close()
                text = f"cannot {what}: the Docker engine does not answer within {timeout:g} s"
                raise _Silent(text) from exc

    @contextmanager
    def counted(self, name: str) -> Iterator[None]:
        """Tell how it ended what is done in here, unless it is cancelled: that says nothing of the engine."""
        begun = time.monotonic()
        try:
            yield
        except PortError as exc:
            self._on_call(name, _outcome(exc), time.monotonic() - begun)
            raise
        self._on_call(name, "ok", time.monotonic() - begun)

    async def stream(
        self, what: str, begin: Callable[[Any], Iterable[T]], *, idle: float
    ) -> AsyncGenerator[T, None]:
        """The items of a long answer, as they come. Leaving it ends the request in the engine, too.

        Not counted: whoever reads it knows how it ended.
        Raises Refused, and Unavailable also after `idle` seconds without any byte.
        """
        stream = _Stream(self, what, begin, idle)
        threading.Thread(target=stream.run, name="docker-stream", daemon=True).start()
        try:
            while (item := await stream.items.get()) is not None:
                if isinstance(item, PortError):
                    raise item
                yield item
        finally:
            stream.cut()

    def close(self) -> None:
        """Close the connections that no call uses now. Who calls later meets the engine anew."""
        with self._lock:
            spare, self._spare, self._version = self._spare, [], None
        for client in spare:
            client.close()

    def open(self, idle: float) -> Client:
        """A new client. From a thread only: loads the SDK, asks the engine for its API version."""
        from almagent.adapters.docker_engine.client import Client  # noqa: PLC0415  loaded when used

        client = Client(self.host, idle=idle, version=self._version)
        self._version = client.api_version
        return client

    def _run(self, what: str, fn: Callable[[Any], T], timeout: float) -> T:
        from almagent.adapters.docker_engine.client import is_answer, translate  # noqa: PLC0415

        client: Client | None = None
        try:
            client = self._take(timeout)
            result = fn(client)
        except PortError:
            self._give(client)
            raise
        except Exception as exc:
            if is_answer(exc):
                self._give(client)
            else:
                self._discard(client)
            raise translate(what, exc, timeout) from exc
        self._give(client)
        return result

    def _run_reader(self, what: str, fn: Callable[[Any], T], timeout: float) -> T:
        from almagent.adapters.docker_engine import reader  # noqa: PLC0415  likewise

        try:
            client = reader.Client(self.host, idle=timeout, version=self._version)
            self._version = client.api_version
            return fn(client)
        except PortError:
            raise
        except Exception as exc:
            if not reader.is_answer(exc):
                self.close()
            raise reader.translate(what, exc, timeout) from exc

    def _take(self, idle: float) -> Client:
        with self._lock:
            client = self._spare.pop() if self._spare else None
        if client is None:
            return self.open(idle)
        client.idle = idle
        return client

    def _give(self, client: Client | None) -> None:
        with self._lock:
            keep = client is not None and len(self._spare) < MAX_SPARE
            if client is not None and keep:
                self._spare.append(client)
        if client is not None and not keep:
            client.close()

    def _discard(self, client: Client | None) -> None:
        if client is not None:
            client.close()
        self.close()


class _Silent(Unavailable):
    """No answer came by the deadline."""


def _outcome(exc: PortError) -> str:
    if isinstance(exc, _Silent):
        return SILENT
    return "refused" if isinstance(exc, Refused) else "failed"


class _Stream(Generic[T]):
    """Reads one stream on a thread and hands its items to the event loop; ends with None or an error."""

    def __init__(
        self,
        door: EngineDoor,
        what: str,
        begin: Callable[[Any], Iterable[T]],
        idle: float,
    ) -> None:
        self.items: asyncio.Queue[T | PortError | None] = asyncio.Queue()
        self._door = door
        self._what = what
        self._begin = begin
        self._idle = idle
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()
        self._client: Client | None = None

    def run(self) -> None:
        from almagent.adapters.docker_engine.client import is_answer, translate  # noqa: PLC0415

        try:
            self._client = self._door.open(self._idle)
            self._read(self._client)
        except Exception as exc:  # noqa: BLE001  a thread has nobody else to tell
            if not self._stopped.is_set() and not is_answer(exc):
                self._door.close()
            self._hand(translate(self._what, exc, self._idle))
        finally:
            if self._client is not None:
                self._client.close()

    def _read(self, client: Client) -> None:
        if self._stopped.is_set():
            return
        for item in self._begin(client):
            if self._stopped.is_set():
                return
            self._hand(item)
        self._hand(None)

    def cut(self) -> None:
        """Stop reading, at once. From the event loop."""
        self._stopped.set()
        if self._client is not None:
            self._client.cut()

    def _hand(self, item: T | PortError | None) -> None:
        if self._stopped.is_set():
            return
        with suppress(RuntimeError):  # the loop has ended meanwhile: nobody reads any more
            self._loop.call_soon_threadsafe(self.items.put_nowait, item)
