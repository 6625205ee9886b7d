"""The life of the token: renewed in time, renewed when it was rejected, one login at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from almagent.core.wire import Token
from almagent.ports import Unavailable

RENEW_AT = 0.75  # of its life; 0.8 is promised, and a request takes its time


class TokenKeeper:
    """`log_in` ends within a deadline of its own, or raises Unavailable; `clock` is monotonic."""

    def __init__(self, log_in: Callable[[], Awaitable[Token]], clock: Callable[[], float]) -> None:
        self._log_in = log_in
        self._clock = clock
        self._flight: asyncio.Task[str] | None = None
        self._text = ""
        self._renew_at = 0.0
        self._expires_at = 0.0

    async def token(self) -> str:
        """A good token; whoever asks during a login waits for that one. Raises Unavailable."""
        if self._text and self._clock() < self._renew_at:
            return self._text
        if self._flight is None:
            self._flight = asyncio.create_task(self._renew(), name="api.login")
            self._flight.add_done_callback(self._landed)
        try:
            return await asyncio.shield(self._flight)  # a waiter that gives up does not end it
        except Unavailable:
            if self._text and self._clock() < self._expires_at:
                return self._text
            raise

    def reject(self, token: str) -> None:
        """The API does not take it any more. Somebody may have renewed it meanwhile."""
        if token == self._text:
            self._text = ""

    async def close(self) -> None:
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait([self._flight])

    async def _renew(self) -> str:
        started = self._clock()
        token = await self._log_in()
        self._text = token.secret.reveal()
        self._renew_at = started + RENEW_AT * token.lifetime
        self._expires_at = started + token.lifetime
        return self._text

    def _landed(self, flight: asyncio.Task[str]) -> None:
        self._flight = None
        if not flight.cancelled():
            flight.exception()  # seen, also when nobody waits any more
