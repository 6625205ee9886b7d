"""Looking at the engine without the docker SDK, whose loading takes longer than all that a command asks.

It has the names of `client`, as far as looking needs them. Requests have no version in their path: the engine
answers as its newest, which is what the SDK finds by asking first; so an engine that was replaced meanwhile is
met as it is now. Each request has a connection of its own: 0.1 ms over a unix socket.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from contextlib import closing
from typing import Any
from urllib.parse import quote, urlencode

from almagent.adapters.docker_engine import answers
from almagent.ports import PortError


class Answer(Exception):
    """The engine said no."""

    def __init__(self, status_code: int, explanation: str) -> None:
        super().__init__(explanation)
        self.status_code = status_code
        self.explanation = explanation


class NotFound(Answer):
    """There is no such thing."""


class Client:
    """For one thread at a time. Raises what `translate` understands."""

    Answer = Answer
    NotFound = NotFound

    def __init__(self, host: str, *, idle: float, version: str | None) -> None:  # noqa: ARG002  as `client` has it
        """`idle`: seconds without a byte after which any request ends."""
        self.idle = idle
        self.api_version: str | None = None
        self._path = host.removeprefix("unix://")

    def version(self) -> Any:
        return self._get("/version")

    def info(self) -> Any:
        return self._get("/info")

    def containers(self, *, all: bool, filters: Mapping[str, list[str]] | None = None) -> Any:  # noqa: A002  the SDK's name
        query = urlencode({"all": int(all), "filters": json.dumps(filters or {})})
        return self._get(f"/containers/json?{query}")

    def inspect_container(self, container_id: str) -> Any:
        return self._get(f"/containers/{quote(container_id, safe='')}/json")

    def close(self) -> None:
        """Nothing is held."""

    def cut(self) -> None:
        """Nothing here is endless."""

    def _get(self, path: str) -> Any:
        with closing(http.client.HTTPConnection("docker")) as connection:
            connection.sock = self._connected()
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        if response.status == http.client.OK:
            return json.loads(body)
        kind = NotFound if response.status == http.client.NOT_FOUND else Answer
        raise kind(response.status, _explanation(body))

    def _connected(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.idle)
            sock.connect(self._path)
        except BaseException:
            sock.close()
            raise
        return sock


def is_answer(exc: BaseException) -> bool:
    """The engine said something well-formed, even if it was no."""
    return isinstance(exc, Answer)


def translate(what: str, exc: BaseException, idle: float) -> PortError:
    """The errors in our words; `what` completes "cannot ...", `idle` is what was waited for."""
    if isinstance(exc, Answer):
        return answers.refusal(what, exc.status_code, exc.explanation)
    if isinstance(exc, TimeoutError):
        return answers.silence(what, idle)
    if isinstance(exc, ValueError | LookupError | TypeError | RecursionError):
        return answers.nonsense(what)
    return answers.absence(what, exc, known=isinstance(exc, OSError))


def _explanation(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return body.decode("utf-8", "replace")
