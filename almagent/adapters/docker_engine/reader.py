"""Looking at the engine without the docker SDK, whose loading takes longer than all that a command asks.

It has the names of `client`, as far as looking needs them. Each request has a connection of its own, which is
0.1 ms over a unix socket.
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
from almagent.adapters.whole_response import WholeResponse
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

    def __init__(self, host: str, *, idle: float, version: str | None) -> None:
        """`idle`: seconds without a byte after which any request ends. `version`: of the API; None: the engine is
        asked for its newest, as the SDK does."""
        self._idle = idle
        self._path = host.removeprefix("unix://")
        self.api_version = version or self._newest()

    def version(self) -> Any:
        return self._ask("/version")

    def info(self) -> Any:
        return self._ask("/info")

    def containers(self, *, all: bool, filters: Mapping[str, list[str]] | None = None) -> Any:  # noqa: A002  the SDK's name
        query = urlencode({"all": int(all), "filters": json.dumps(filters or {})})
        return self._ask(f"/containers/json?{query}")

    def inspect_container(self, container_id: str) -> Any:
        return self._ask(f"/containers/{quote(container_id, safe='')}/json")

    def _newest(self) -> str:
        try:
            found: str = self._get("/version")["ApiVersion"]
        except NotFound as exc:
            raise ConnectionError("it has no version") from exc
        return found

    def _ask(self, path: str) -> Any:
        return self._get(f"/v{self.api_version}{path}")

    def _get(self, path: str) -> Any:
        with closing(http.client.HTTPConnection("docker")) as connection:
            connection.response_class = WholeResponse
            connection.sock = connected(self._path, self._idle)
            connection.request("GET", path)
            with closing(connection.getresponse()) as response:
                body = response.read()
        if response.status == http.client.OK:
            return json.loads(body)
        kind = NotFound if response.status == http.client.NOT_FOUND else Answer
        explanation = _explanation(body) or f"HTTP {response.status} {response.reason}"
        raise kind(response.status, explanation)


def connected(path: str, idle: float | None) -> socket.socket:
    """To a unix socket; closed again where that fails."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(idle)
        sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def is_answer(exc: BaseException) -> bool:
    """The engine said something well-formed of the request, even if it was no."""
    return isinstance(exc, Answer) and not answers.is_about_version(exc.explanation)


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
