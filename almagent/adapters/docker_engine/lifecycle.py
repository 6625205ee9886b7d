"""What is done to a container that exists. Each step is no error when it has been done already."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from almagent.adapters.docker_engine import logdirs, network, texts
from almagent.adapters.docker_engine.common import Common
from almagent.ports import Evidence

LOG_LINES = 200  # so that a key or an environment that is printed begins in them
LOG_LIMIT = 65536  # characters of them
CONFLICT = 409  # it is not running, or it is being removed already
STOP_SIGNAL = "SIGTERM"  # where the image names none


def set_restart(client: Any, container_id: str, name: str) -> None:
    client.update_container(container_id, restart_policy={"Name": name})


def start(client: Any, container_id: str, common: Common) -> None:
    """A paused container goes on. One whose network was pruned while it was stopped gets it back."""
    data = client.inspect_container(container_id)
    if data["State"]["Paused"]:
        client.unpause(container_id)
        return
    try:
        client.start(container_id)
    except client.NotFound:
        if not network.rejoin(client, common.owner, data):
            raise
        client.start(container_id)


def terminate(client: Any, container_id: str) -> None:
    """The policy first: Docker would start it again as soon as it ended."""
    try:
        data = client.inspect_container(container_id)
        if data["HostConfig"]["RestartPolicy"]["Name"] not in {"", "no"}:
            set_restart(client, container_id, "no")
        if data["State"]["Paused"]:  # a frozen process takes no signal
            client.unpause(container_id)
    except client.NotFound:
        return
    if data["State"]["Running"]:
        _signal(client, container_id, data["Config"].get("StopSignal") or STOP_SIGNAL)


def kill(client: Any, container_id: str) -> None:
    _signal(client, container_id, "SIGKILL")


def remove(client: Any, container_id: str, common: Common) -> None:
    """With its anonymous volumes and its log directory; with the last one goes the network."""
    try:
        directory = logdirs.source(client.inspect_container(container_id), common.logs)
        _unless_conflict(client, client.remove_container, container_id, force=True, v=True)
    except client.NotFound:
        return
    network.remove_unused(client, common.owner)
    if directory is not None:
        logdirs.discard(directory)


def evidence(client: Any, container_id: str) -> Evidence:
    state = client.inspect_container(container_id)["State"]
    tail = b""
    with suppress(client.Answer):  # a log driver that cannot be read back
        tail = client.logs(container_id, tail=LOG_LINES)
    code = None if state["Running"] else state["ExitCode"]
    return Evidence(code, state["OOMKilled"], texts.last_lines(tail, LOG_LIMIT))


def sweep(client: Any, common: Common) -> None:
    """Remove what containers leave that somebody else removed: log directories, the network.

    Not while one is being created: its directory and network come first.
    """
    rows = client.containers(all=True, filters=common.owner.filters)
    sources = [logdirs.source(row, common.logs) for row in rows]
    logdirs.sweep(common.logs, [path for path in sources if path is not None])
    network.remove_unused(client, common.owner)


def _signal(client: Any, container_id: str, name: str) -> None:
    with suppress(client.NotFound):
        _unless_conflict(client, client.kill, container_id, signal=name)


def _unless_conflict(client: Any, fn: Any, container_id: str, **options: Any) -> None:
    try:
        fn(container_id, **options)
    except client.Answer as exc:
        if exc.status_code != CONFLICT:
            raise
