"""HTTP to one host, distrustful: nothing is re-sent elsewhere, unpacked, remembered or read without end.

Deadlines are the caller's. Answers are never unpacked: `Accept-Encoding: identity` was asked for, and what
comes packed all the same is no JSON, so a bomb stays as small as it was sent.
"""

from __future__ import annotations

import os
import socket
import time
from functools import partial

from yarl import URL

from almagent.adapters.alm.peer import BODY_LIMIT, Peer, counted, look_up, too_large
from almagent.adapters.calls import OnCall
from almagent.adapters.http_library import aiohttp
from almagent.adapters.threads import Door
from almagent.adapters.trust import ask
from almagent.core.wire import Answer, Request
from almagent.ports import Unavailable

KEEP_ALIVE = (
    55.0  # seconds: outlives the default poll interval, ends before the 60 s of common balancers
)

_REASONS: tuple[tuple[type[Exception], str], ...] = (  # the most particular first
    (aiohttp.ClientConnectorCertificateError, "the certificate of {host} is not trusted"),
    (aiohttp.ClientSSLError, "{host} does not speak TLS as we do"),
    (aiohttp.ClientConnectorDNSError, "the name {host} cannot be resolved"),
    (aiohttp.ClientProxyConnectionError, "the proxy cannot be reached ({cause})"),
    (aiohttp.ClientHttpProxyError, "the proxy refused to connect to {host}"),
    (aiohttp.ClientConnectorError, "{host} cannot be reached ({cause})"),
    (aiohttp.ClientResponseError, "{host} does not speak HTTP"),
    (aiohttp.InvalidURL, "{host} is not a usable address"),
    (aiohttp.ClientError, "{host} closed the connection"),
    (OSError, "{host} closed the connection"),
)


class AiohttpTransport:
    def __init__(self, peer: Peer, *, timeout: float, on_call: OnCall) -> None:
        """`timeout`: seconds that a name server gets."""
        self._peer = peer
        self._timeout = timeout
        self._on_call = on_call
        self._open_session: aiohttp.ClientSession | None = None

    async def send(self, request: Request, token: str = "") -> Answer:
        """Raises Unavailable when no answer comes or it is too large. The caller sets the deadline."""
        question = partial(self._exchange, request, token)
        answer = ask(question, self._peer.trust, aiohttp.ClientConnectorError)
        try:
            return await counted(request, answer, self._on_call)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            why = _reason(error, self._peer.host)
            raise Unavailable(f"cannot {request.purpose}: {why}") from error

    async def close(self) -> None:
        if self._open_session is not None:
            await self._open_session.close()

    async def _exchange(self, request: Request, token: str) -> Answer:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self._session().request(
            request.method,
            URL(self._peer.base + request.path).with_query(request.query),
            data=request.body,
            headers={**request.headers, **headers},
            proxy=self._peer.proxy,
            allow_redirects=False,
        ) as response:
            body = await _read(response, request.purpose) if request.wants_body else b""
            labels = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, labels, body, time.time())

    def _session(self) -> aiohttp.ClientSession:
        """Made at the first request: it belongs to the running loop."""
        if self._open_session is None:
            self._open_session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=self._peer.trust.context if self._peer.trust else True,
                    resolver=_Resolver(self._timeout),
                    keepalive_timeout=KEEP_ALIVE,
                ),
                headers=self._peer.headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                auto_decompress=False,
            )
        return self._open_session


class _Resolver(aiohttp.abc.AbstractResolver):
    """The system's own, behind a door: a dead name server blocks nobody else and keeps nothing alive."""

    def __init__(self, timeout: float) -> None:
        self._door = Door("resolver")
        self._timeout = timeout

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[aiohttp.abc.ResolveResult]:
        found = await self._door.call(look_up, host, port, family, timeout=self._timeout)
        return [
            aiohttp.abc.ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST,
            )
            for kind, _, proto, _, address in found
        ]

    async def close(self) -> None:
        """Nothing is held."""


async def _read(response: aiohttp.ClientResponse, purpose: str) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > BODY_LIMIT:
            raise too_large(purpose)
    return bytes(body)


def _reason(error: Exception, host: str) -> str:
    """In our own words: the library's texts may show URLs and headers."""
    for kind, text in _REASONS:
        if isinstance(error, kind):
            number = getattr(error, "errno", None)
            return text.format(
                host=host, cause=os.strerror(number) if number else "no address answers"
            )
    return f"the request to {host} failed ({type(error).__name__})"
