"""The Docker engine of this machine, through the vendor's own client."""

from __future__ import annotations

import os
import socket

import docker
from docker.errors import DockerException
from docker.utils import kwargs_from_env


class NoEngineError(Exception):
    """No Docker engine answers; the text says where and why."""


def connect() -> docker.APIClient:
    """DOCKER_HOST is honoured. Raises NoEngineError."""
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    try:
        if host.startswith("unix://"):  # the client does not close its socket when nobody listens
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(host.removeprefix("unix://"))
        return docker.APIClient(version="auto", timeout=30, **kwargs_from_env())
    except (OSError, DockerException) as exc:
        hint = "tools/with-host starts one"
        raise NoEngineError(f"no Docker engine answers at {host} ({hint}): {exc}") from None
