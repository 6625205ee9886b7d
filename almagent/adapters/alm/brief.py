"""`transport` for a command that asks once or twice and ends: without aiohttp, whose loading takes half of its time.

By the standard library, on a thread, each request with a connection of its own. It promises the same, and the same
tests check both; only a proxy it cannot use.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import time
from collections import defaultdict
from contextlib import closing
from functools import partial
from itertools import count
from typing import Any
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from almagent.adapters.alm.peer import BODY_LIMIT, Peer, counted, look_up, too_large
from almagent.adapters.calls import OnCall
from almagent.adapters.threads import Door
from almagent.adapters.trust import ask
from almagent.adapters.whole_response import WholeResponse
from almagent.core.wire import Answer, Request
from almagent.ports import Unavailable

SAFE = "%/:@!$&'()*+,;=~"  # what stands for itself in a path, beside letters and digits
PORTS = {"http": 80, "https": 443}
MOST = 4  # addresses that are tried, the families by turns
CONNECTING = 0.9  # of the time: so much to connect, for all of them together

_WHILE_CONNECTING: tuple[tuple[type[Exception], str], ...] = (  # the most particular first
    (ssl.SSLCertVerificationError, "the certificate of {host} is not trusted"),
    (ssl.SSLError, "{host} does not speak TLS as we do"),
    (socket.gaierror, "the name {host} cannot be resolved"),
    (OSError, "{host} cannot be reached ({cause})"),
)
_LATER: tuple[tuple[type[Exception], str], ...] = (
    (UnicodeError, "{host} is not a usable address"),
    (http.client.IncompleteRead, "{host} closed the connection"),
    (OSError, "{host} closed the connection"),
)
_NO_HTTP = "{host} does not speak HTTP"


class NotConnected(OSError):
    """There is no connection; its cause says why."""


class BriefTransport:
    def __init__(self, peer: Peer, *, timeout: float, on_call: OnCall) -> None:
        """`timeout`: seconds that the caller gives a request."""
        self._peer = peer
        self._timeout = timeout
        self._on_call = on_call
        self._door = Door("api")
        self._good: tuple[Any, ...] = ()  # the address that took the last connection

    async def send(self, request: Request, token: str = "") -> Answer:
        """Raises Unavailable when no answer comes or it is too large. The caller sets the deadline."""
        question = partial(self._door.call, self._exchange, request, token, timeout=self._timeout)
        answer = ask(question, self._peer.trust, NotConnected)
        try:
            return await counted(request, answer, self._on_call)
        except TimeoutError:  # the deadline's; it is an OSError, too
            raise
        except (http.client.HTTPException, OSError, ValueError) as error:
            why = _reason(error, self._peer.host)
            raise Unavailable(f"cannot {request.purpose}: {why}") from error

    async def close(self) -> None:
        """Nothing is held."""

    def _exchange(self, request: Request, token: str) -> Answer:
        url = urlsplit(self._peer.base)
        target = quote(url.path + request.path, safe=SAFE)
        target += f"?{urlencode(request.query)}" if request.query else ""
        headers = {**self._peer.headers, **request.headers, "Host": _authority(url)}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        with closing(http.client.HTTPConnection("api")) as connection:
            connection.response_class = WholeResponse
            connection.sock = self._connected(url)
            connection.request(request.method, target, request.body, headers)
            answer: Any = connection.getresponse()
            with closing(answer) as response:
                body = response.body(BODY_LIMIT + 1) if request.wants_body else b""
                if len(body) > BODY_LIMIT:
                    raise too_large(request.purpose)
                labels = {name.lower(): content for name, content in response.getheaders()}
                return Answer(response.status, labels, body, time.time())

    def _connected(self, url: SplitResult) -> socket.socket:
        """Raises NotConnected, with the last address's reason."""
        problem: OSError = OSError("it has no address")
        try:
            found = look_up(self._peer.host, url.port or PORTS[url.scheme])
        except OSError as error:
            raise NotConnected from error
        addresses = sorted(_by_turns(found)[:MOST], key=lambda address: address != self._good)
        for address in addresses:
            try:
                sock = self._open(url, address, self._timeout * CONNECTING / len(addresses))
            except OSError as error:
                problem = error
            else:
                self._good = address
                sock.settimeout(2 * self._timeout)  # the caller's deadline comes first
                return sock
        raise NotConnected from problem

    def _open(self, url: SplitResult, info: tuple[Any, ...], patience: float) -> socket.socket:
        family, kind, proto, _, address = info
        sock = socket.socket(family, kind, proto)
        try:
            sock.settimeout(patience)
            sock.connect(address)
            if self._peer.trust and url.scheme == "https":
                name = self._peer.host.rstrip(".")
                return self._peer.trust.context.wrap_socket(sock, server_hostname=name)
        except BaseException:
            sock.close()
            raise
        return sock


def _by_turns(addresses: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """One of each family, then the next ones: a whole family may be dead."""
    place: defaultdict[int, count[int]] = defaultdict(count)  # of each family
    return sorted(addresses, key=lambda address: next(place[address[0]]))


def _authority(url: SplitResult) -> str:
    return url.netloc if url.netloc.isascii() else url.netloc.encode("idna").decode()


def _reason(error: Exception, host: str) -> str:
    """In our own words: the library's texts may show URLs and headers."""
    connecting = isinstance(error, NotConnected)
    problem = error.__cause__ if connecting else error
    known = _WHILE_CONNECTING if connecting else _LATER
    text = next((text for kind, text in known if isinstance(problem, kind)), _NO_HTTP)
    number = getattr(problem, "errno", None)
    return text.format(host=host, cause=os.strerror(number) if number else "no address answers")
