"""One HTTP request to a metadata service, and what its answer may mean.

Whoever answers on a link-local address is not trusted: no proxy, no redirect, no cookie, no
compression, a capped body, one deadline for the whole exchange. Only 200 and 404 say anything; every
other outcome is Unavailable, because a service that is broken does not announce the end of a machine.

Answers are taken apart by the standard library. Asking each 5 s is most of what an idle agent does, and takes a
quarter less here than by aiohttp, whose loading would be half of what `almagent doctor` takes.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import time
from collections.abc import Mapping
from email.message import Message
from io import BufferedReader, BytesIO
from typing import Any
from urllib.parse import quote, urlsplit

from almagent.adapters.calls import OnCall, uncounted
from almagent.adapters.whole_response import WholeResponse
from almagent.core.frozen import frozen
from almagent.ports import Unavailable

TIMEOUT = 2.0  # seconds for one exchange; AWS's own agents use the same
SMALL = 4 * 1024  # bytes; identifiers, tokens and single notices are far below it
LARGE = (
    64 * 1024
)  # bytes; lists of events and OpenStack's document, which holds the user's own keys
HEAD = 16 * 1024  # bytes of status and headers, as many as common servers send at most
SAFE = "%/?&=:@!$'()*+,;[]~"  # what stands for itself in the target of a request, beside letters and digits
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)


class Silent(Unavailable):
    """The connection was accepted, but no whole answer came in time."""


@frozen
class Answer:
    path: str  # without its query
    status: int
    text: str
    headers: Message  # whose names may be asked for in any case

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
        url = urlsplit(base)
        self._tls = ssl.create_default_context() if url.scheme == "https" else None
        self._host, self._port = url.hostname or "", url.port or (443 if self._tls else 80)
        self._authority = url.netloc.rpartition("@")[2]
        self._prefix = url.path.rstrip("/")
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
        return await self._request("PUT", path, {"Content-Length": "0", **headers})

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
            async with asyncio.timeout(deadline):
                said = await self._exchange(self._written(method, path, headers), HEAD + cap)
            answer = _understood(name, said, method, cap)
            outcome = str(answer.status)
            return answer  # noqa: TRY300  an else would not have `answer` checked before
        except TimeoutError as exc:
            raise Silent(f"cannot read {name}: no whole answer within {deadline:g} s") from exc
        except Unavailable:
            raise
        except Exception as exc:  # of what a stranger says: it is unknown, whatever it is
            raise Unavailable(f"cannot read {name}: {_reason(exc)}") from exc
        finally:
            self._on_call(name, outcome, time.monotonic() - begun)

    def _written(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        lines = {
            "Host": self._authority,
            "User-Agent": "almagent",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "Connection": "close",
            **headers,
        }
        head = [f"{method} {quote(self._prefix + path, safe=SAFE)} HTTP/1.1"]
        head += [f"{name}: {content}" for name, content in lines.items()]
        return "\r\n".join([*head, "", ""]).encode("ascii")

    async def _exchange(self, request: bytes, most: int) -> bytes:
        """Raises OSError; TimeoutError is the deadline's."""
        loop = asyncio.get_running_loop()
        try:
            # Connecting gets less than the whole time, so that silence after it can be told apart.
            async with asyncio.timeout(self.timeout * 0.8):
                transport, answer = await loop.create_connection(
                    lambda: _Answer(loop.create_future(), most),
                    self._host,
                    self._port,
                    ssl=self._tls,
                )
        except TimeoutError as exc:
            raise OSError(0, "no connection in time") from exc
        try:
            transport.write(request)
            problem = await answer.ended
            if problem is not None:
                raise problem
            return bytes(answer.said)
        finally:
            answer.ended.cancel()
            transport.abort()


class _Answer(asyncio.Protocol):
    """What is said on one connection, until it ends, the announced length is there, or it is too much."""

    def __init__(self, ended: asyncio.Future[Exception | None], most: int) -> None:
        self.ended = ended  # with what broke it off
        self.said = bytearray()
        self._most = most

    def data_received(self, data: bytes) -> None:
        self.said += data
        if self._is_whole() and not self.ended.done():
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(exc)

    def _is_whole(self) -> bool:
        if len(self.said) > self._most:
            return True
        end = self.said.find(b"\r\n\r\n") + 4
        if end < 4:
            return False
        if _CHUNKED.search(self.said, 0, end):
            return self.said.endswith(b"0\r\n\r\n")
        length = _LENGTH.search(self.said, 0, end)
        return length is not None and len(self.said) >= end + int(length[1])


class _Said:
    """What the standard library takes for the socket."""

    def __init__(self, said: bytes) -> None:
        self._said = said

    def makefile(self, _mode: str) -> BufferedReader:
        raw: Any = BytesIO(self._said)  # of a raw stream only what it has is needed
        return BufferedReader(raw)


def _understood(name: str, said: bytes, method: str, cap: int) -> Answer:
    """Raises HTTPException, ValueError, Unavailable."""
    too_much = Unavailable(f"cannot read {name}: more than {cap} bytes")
    if len(said) > HEAD + cap:
        raise too_much
    sock: Any = _Said(said)
    with WholeResponse(sock, method=method) as response:
        response.begin()
        body = response.body(cap + 1)
    if len(body) > cap:
        raise too_much
    return Answer(name, response.status, body.decode().strip(), response.headers)


def _reason(exc: Exception) -> str:
    """Short, and without addresses."""
    if isinstance(exc, ssl.SSLError):  # its numbers are OpenSSL's
        return type(exc).__name__
    number = getattr(exc, "errno", None) or 0
    if number > 0:
        return os.strerror(number)  # the library's text has addresses in it
    return getattr(exc, "strerror", None) or type(exc).__name__
