"""One HTTP request to a metadata service, and what its answer may mean.

Whoever answers on a link-local address is not trusted: no proxy, no redirect, no cookie, no
compression, a capped body, one deadline for the whole exchange. Only 200 and 404 say anything; every
other outcome is Unavailable, because a service that is broken does not announce the end of a machine.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from almagent.adapters.calls import OnCall, uncounted
from almagent.adapters.http_library import aiohttp
from almagent.core.frozen import frozen
from almagent.ports import Unavailable

TIMEOUT = 2.0  # seconds for one exchange; AWS's own agents use the same
SMALL = 4 * 1024  # bytes; identifiers, tokens and single notices are far below it
LARGE = (
    64 * 1024
)  # bytes; lists of events and OpenStack's document, which holds the user's own keys


class Silent(Unavailable):
    """The connection was accepted, but no whole answer came in time."""


@frozen
class Answer:
    path: str  # without its query
    status: int
    text: str
    headers: Mapping[str, str]

    def found(self) -> str | None:
        """The text; None: there is no such thing (404). Raises Unavailable for every other status."""
        if self.status == 200:
            return self.text
        if self.status == 404:
            return None
        raise Unavailable(f"cannot read {self.path}: HTTP {self.status}")


class Client:
    """Requests to one base URL, a connection each: one every few seconds is not worth keeping."""

    def __init__(self, base: str, *, timeout: float, on_call: OnCall = uncounted) -> None:
        self._base = base.rstrip("/")
        self._tls = ssl.create_default_context() if urlsplit(base).scheme == "https" else True
        self._on_call = on_call  # hears the path and the HTTP status, or "failed"
        self.timeout = timeout  # seconds

    async def get(
        self,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        cap: int = SMALL,
        wait: float = 0.0,
    ) -> Answer:
        """`path` may have a query; `wait`: seconds the service is to hold its answer back. Raises Unavailable."""
        return await self._request("GET", path, headers or {}, cap=cap, wait=wait)

    async def put(self, path: str, *, headers: Mapping[str, str]) -> Answer:
        """Raises Unavailable, Silent when only the answer is missing."""
        return await self._request("PUT", path, headers)

    async def _request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        *,
        cap: int = SMALL,
        wait: float = 0.0,
    ) -> Answer:
        name = path.partition("?")[0]
        deadline = self.timeout + wait
        begun, outcome = time.monotonic(), "failed"
        try:
            async with asyncio.timeout(deadline), self._session() as session:
                answer = await _exchange(session, method, self._base + path, headers, cap)
            outcome = str(answer.status)
            return answer  # noqa: TRY300  an else would need the deadline around it, too
        except aiohttp.ConnectionTimeoutError as exc:
            raise Unavailable(f"cannot read {name}: no connection in time") from exc
        except TimeoutError as exc:
            raise Silent(f"cannot read {name}: no whole answer within {deadline:g} s") from exc
        except (aiohttp.ClientError, OSError, UnicodeDecodeError) as exc:
            raise Unavailable(f"cannot read {name}: {_reason(exc)}") from exc
        finally:
            self._on_call(name, outcome, time.monotonic() - begun)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            # Connecting gets less than the whole time, so that silence after it can be told apart.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self.timeout * 0.8),
        )


async def _exchange(
    session: aiohttp.ClientSession, method: str, url: str, headers: Mapping[str, str], cap: int
) -> Answer:
    plain = {"Accept-Encoding": "identity", **headers}
    async with session.request(method, url, headers=plain, allow_redirects=False) as response:
        name = response.url.path
        body = await _capped(response.content, name, cap)
        return Answer(name, response.status, body.decode().strip(), response.headers)


async def _capped(content: aiohttp.StreamReader, name: str, cap: int) -> bytes:
    body = b""
    async for chunk in content.iter_chunked(cap):
        body += chunk
        if len(body) > cap:
            raise Unavailable(f"cannot read {name}: more than {cap} bytes")
    return body


def _reason(exc: Exception) -> str:
    """Short, and without the URL: an endpoint of the user's may hold a password."""
    number = getattr(exc, "errno", None) or 0
    if number > 0:
        return os.strerror(number)  # the library's text has addresses in it
    return getattr(exc, "strerror", None) or type(exc).__name__
