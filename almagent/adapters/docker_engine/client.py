"""The docker SDK's low-level client with its traps shut.

- `pull` and `events` wait for ever: every wait for a byte is bounded here (idle limit).
- It keeps a pool of sockets for every URL it ever saw: here it has one connection in all.
- It reads the user's Docker configuration, and fails when that is broken: here it reads none.
- A stream can be left only when its next byte arrives: `cut` ends it from another thread.

Importing this module loads the SDK (4 MB, 60 ms); `door` does so when more is wanted than `reader` can do.
"""

import json
import os
import socket
from contextlib import suppress
from typing import Any

import urllib3.exceptions

from almagent.adapters.docker_engine import answers
from almagent.adapters.docker_engine.reader import connected
from almagent.adapters.docker_engine.sdk import (
    APIClient,
    APIError,
    DockerException,
    NotFound,
    Timeout,
    decode_json_header,
    kwargs_from_env,
    unixconn,
)
from almagent.ports import PortError


class _Connection(unixconn.UnixHTTPConnection):
    """The SDK's, which leaves its socket open when it cannot connect."""

    def connect(self) -> None:
        self.sock = connected(self.unix_socket, self.timeout)


class _OneConnection(unixconn.UnixHTTPConnectionPool):
    """A pool that lets its connection be found while a request is in flight on it."""

    last: Any = None

    def _new_conn(self) -> Any:
        self.last = _Connection(self.base_url, self.socket_path, self.timeout)  # type: ignore[arg-type]
        return self.last


class _OnePool(unixconn.UnixHTTPAdapter):
    """The SDK's transport over the unix socket, with one pool for all URLs."""

    def __init__(self, path: str, idle: float) -> None:
        super().__init__("http+unix://" + path, timeout=idle)  # type: ignore[arg-type]
        self.pool = _OneConnection("http://localhost", path, timeout=idle, maxsize=1)  # type: ignore[arg-type]

    def get_connection(self, url: Any, proxies: Any = None) -> _OneConnection:  # noqa: ARG002  the SDK's signature
        return self.pool

    def close(self) -> None:
        super().close()
        self.pool.close()
        if self.pool.last is not None:  # the pool does not know of one that a stream still has
            self.pool.last.close()


class Client(APIClient):
    """One connection to the engine, for one thread at a time."""

    Answer = APIError  # the engine said no, for those who use a client and do not load the SDK
    NotFound = NotFound  # ... because there is no such thing

    def __init__(self, host: str, *, idle: float, version: str | None) -> None:
        """`idle`: seconds without a byte after which any request ends. Raises what the SDK raises."""
        self.idle = idle
        self._one_pool = _OnePool(host.removeprefix("unix://"), idle) if _is_socket(host) else None
        kwargs = kwargs_from_env(environment=os.environ | {"DOCKER_HOST": host})
        super().__init__(version=version or "auto", timeout=idle, **kwargs)  # type: ignore[arg-type]
        self.trust_env = False  # neither proxies nor ~/.netrc are meant for the engine

    @property
    def _general_configs(self) -> dict[str, Any]:
        """What the SDK takes for the user's `config.json`.

        Not the real one: a broken file would keep us from the engine, its proxies would end up in
        containers, and its logins are looked up elsewhere, with a deadline.
        """
        return {"auths": {}}

    @_general_configs.setter
    def _general_configs(self, _found: object) -> None: ...

    def get_adapter(self, url: str) -> Any:
        return self._one_pool or super().get_adapter(url)

    def _set_request_timeout(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        kwargs["timeout"] = kwargs.get("timeout") or self.idle
        return kwargs

    def close(self) -> None:
        super().close()
        if self._one_pool is not None:
            self._one_pool.close()

    def cut(self) -> None:
        """End the request in flight, whatever it waits for. From another thread.

        Over TCP it is the idle limit that ends it.
        """
        connection = self._one_pool.pool.last if self._one_pool is not None else None
        sock = getattr(connection, "sock", None)
        if isinstance(sock, socket.socket):
            with suppress(OSError):  # it ended by itself meanwhile
                sock.shutdown(socket.SHUT_RDWR)

    def stat(self, container_id: str, path: str) -> dict[str, Any]:
        """What a path in the container is: name, size, mode (bits of Go's os.FileMode). 404 if absent."""
        url = self._url("/containers/{0}/archive", container_id)  # type: ignore[attr-defined]
        response = self.head(url, params={"path": path}, timeout=self.idle)
        self._raise_for_status(response)  # type: ignore[attr-defined]
        header = response.headers["X-Docker-Container-Path-Stat"]
        found: dict[str, Any] = decode_json_header(header)
        return found


def _is_socket(host: str) -> bool:
    return host.startswith("unix://")


def is_answer(exc: BaseException) -> bool:
    """The engine said something well-formed of the request, even if it was no."""
    return isinstance(exc, APIError) and not answers.is_about_version(str(exc.explanation))


def translate(what: str, exc: BaseException, idle: float) -> PortError:
    """The vendor's errors in our words; `what` completes "cannot ...", `idle` is what was waited for."""
    if isinstance(exc, APIError):
        return answers.refusal(what, exc.status_code or 0, str(exc.explanation or exc))
    if isinstance(exc, Timeout | urllib3.exceptions.TimeoutError):
        return answers.silence(what, idle)
    if isinstance(exc, json.JSONDecodeError | KeyError | RecursionError):
        return answers.nonsense(what)
    known = OSError | DockerException | urllib3.exceptions.HTTPError
    return answers.absence(what, exc, known=isinstance(exc, known))
