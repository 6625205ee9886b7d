"""Where the API is, through which proxy it is asked, and whom TLS trusts there."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Awaitable
from typing import Any
from urllib.parse import urlsplit

from almagent.adapters.alm.proxies import proxy_for
from almagent.adapters.calls import OnCall
from almagent.adapters.trust import Trust
from almagent.core.frozen import frozen
from almagent.core.wire import Answer, Request
from almagent.ports import Refused, Unavailable

BODY_LIMIT = 1 << 20  # bytes of an answer


@frozen
class Peer:
    base: str  # its URL, without a slash at the end
    host: str
    proxy: str | None  # a URL, perhaps with a password
    trust: Trust | None  # None: nothing is asked over TLS
    headers: dict[str, str]  # of each request


def peer(url: str, ca_file: str, user_agent: str) -> Peer:
    """Raises Refused when the CA file or the proxy of the environment cannot be used."""
    try:
        proxy = proxy_for(url, os.environ)
    except ValueError as error:
        raise Refused(str(error)) from None
    tls = any(urlsplit(text).scheme == "https" for text in (url, proxy or ""))
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": user_agent,
    }
    host = urlsplit(url).hostname or url
    return Peer(url.rstrip("/"), host, proxy, _trust(ca_file, needed=tls), headers)


async def counted(request: Request, answer: Awaitable[Answer], on_call: OnCall) -> Answer:
    """The answer. `on_call` is told its HTTP status, or "failed" where there is none."""
    started, outcome = time.monotonic(), "failed"
    try:
        found = await answer
        outcome = str(found.status)
    finally:
        on_call(request.name, outcome, time.monotonic() - started)
    return found


def too_large(purpose: str) -> Unavailable:
    return Unavailable(f"cannot {purpose}: the answer is larger than {BODY_LIMIT} bytes")


def look_up(host: str, port: int, family: int = socket.AF_UNSPEC) -> list[tuple[Any, ...]]:
    """The system's own way; blocks."""
    flags = socket.AI_ADDRCONFIG
    return list(socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=flags))


def _trust(ca_file: str, *, needed: bool) -> Trust | None:
    """In the system's and in `ca_file` beside it."""
    try:
        return Trust(*([ca_file] if ca_file else [])) if needed or ca_file else None
    except OSError as error:  # ssl.SSLError is one
        raise Refused(f"cannot use the CA file {ca_file}: {error.strerror}") from error
