"""The session token that AWS and Alibaba Cloud want with every metadata request.

Both speak the same protocol under different header names: PUT /latest/api/token with the wanted life
in seconds, then the token in a header (AWS "Use the Instance Metadata Service to access instance
metadata"; Alibaba "Instance metadata", security hardening mode).
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Mapping
from time import monotonic

from almagent.adapters.metadata.client import Answer, Client, Silent
from almagent.ports import Unavailable

PATH = "/latest/api/token"
LIFE = 21600  # seconds; the longest that both clouds grant
RENEW = 0.8  # of the life: a new one is fetched before requests fail with the old one
TOKEN = re.compile(r"[!-;=?-~]+")  # printable, no space, no markup


class SwitchedOff(Unavailable):
    """By whoever owns the instance: nothing on this host can change it."""


class Session:
    """Reads paths with a token, or plainly where the service knows no tokens.

    Plainly only if the token call says 404 or 405 and never gave a token: a service that is merely
    in trouble must not make us fall back to requests that anybody could forge.
    """

    def __init__(
        self, client: Client, header: str, *, life: int = LIFE, now: Callable[[], float] = monotonic
    ) -> None:
        self._client = client
        self._header = header
        self._life = life
        self._now = now
        self._lock = asyncio.Lock()
        self._headers: Mapping[str, str] | None = None
        self._renew_at = -math.inf
        self._attempts = 0
        self._failure: Unavailable | None = None

    @property
    def plain(self) -> bool:
        """Whether the service turned out to know no tokens."""
        return self._headers == {}

    async def read(self, path: str) -> str | None:
        """The text at `path`, None for 404. A refused token is renewed once. Raises Unavailable."""
        headers = await self._current()
        answer = await self._client.get(path, headers=headers)
        if answer.status == 401:
            headers = await self._current(refused=headers)
            answer = await self._client.get(path, headers=headers)
        return answer.found()

    async def _current(self, refused: Mapping[str, str] | None = None) -> Mapping[str, str]:
        attempts = self._attempts
        async with self._lock:
            usable = self._usable(refused)
            if usable is not None:
                return usable
            if self._attempts != attempts and self._failure:
                raise Unavailable(str(self._failure))
            return await self._attempt()

    def _usable(self, refused: Mapping[str, str] | None) -> Mapping[str, str] | None:
        if self._now() >= self._renew_at or self._headers == refused:
            return None
        return self._headers

    async def _attempt(self) -> Mapping[str, str]:
        self._failure = None
        try:
            self._headers = await self._fetch()
        except Unavailable as exc:
            self._failure = exc
            raise
        finally:
            self._attempts += 1  # at its end: who comes during it shares its outcome
        return self._headers

    async def _fetch(self) -> Mapping[str, str]:
        wanted = f"{self._header}-ttl-seconds"
        try:
            answer = await self._client.put(PATH, headers={wanted: str(self._life)})
        except Silent as exc:
            raise Unavailable(
                f"{exc}; in a container or behind a bridge the token needs a metadata response hop limit of 2"
            ) from exc
        if answer.status in {404, 405} and not self._headers:
            self._renew_at = math.inf
            return {}
        if answer.status == 403:
            raise SwitchedOff(
                f"cannot get a token at {PATH}: HTTP 403, the service is switched off"
            )
        if answer.status != 200 or not TOKEN.fullmatch(answer.text):
            raise Unavailable(f"cannot get a token at {PATH}: HTTP {answer.status}")
        self._renew_at = self._now() + RENEW * self._granted(answer, wanted)
        return {self._header: answer.text}

    def _granted(self, answer: Answer, header: str) -> int:
        """Seconds of life: what the service says, which may be less than was asked for."""
        told = answer.headers.get(header, "")
        return min(int(told), self._life) if re.fullmatch("[0-9]{1,9}", told) else self._life
