"""The door for blocking calls: daemon threads with a deadline.

`asyncio.to_thread` would keep the process from ending for as long as a call hangs.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar, TypeVarTuple, cast

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Door:
    """Runs blocking calls on threads of its own, at most `limit` at a time.

    A call that hangs keeps its place until it ends, so that a dead neighbour cannot collect threads
    without bound: when all places hang, further calls end at their deadline.
    """

    def __init__(self, name: str, limit: int = 4) -> None:
        self._name = name
        self._places = asyncio.Semaphore(limit)

    async def call(
        self,
        fn: Callable[[*Ts], T],
        *args: *Ts,
        timeout: float,
    ) -> T:
        """`fn(*args)` or what it raises; TimeoutError when it takes longer than `timeout` seconds.

        The wait for a free place counts. At the deadline and on cancellation the thread is left behind:
        its late result is dropped, and it does not keep the interpreter from ending.
        """
        async with asyncio.timeout(timeout):
            await self._places.acquire()
            result, error = await self._start(fn, args)
        if error is not None:
            raise error
        return cast("T", result)

    def _start(
        self, fn: Callable[[*Ts], T], args: tuple[*Ts]
    ) -> asyncio.Future[tuple[T | None, BaseException | None]]:
        loop = asyncio.get_running_loop()
        outcome = loop.create_future()

        def settle(result: T | None, error: BaseException | None) -> None:
            self._places.release()
            if not outcome.done():
                outcome.set_result((result, error))

        def work() -> None:
            result, error = None, None
            try:
                result = fn(*args)
            except BaseException as exc:  # noqa: BLE001 - it is raised again in the caller
                error = exc
            with suppress(RuntimeError):  # the loop has ended meanwhile: nobody waits any more
                loop.call_soon_threadsafe(settle, result, error)

        try:
            threading.Thread(target=work, name=self._name, daemon=True).start()
        except RuntimeError:  # no more threads
            self._places.release()
            raise
        return outcome
