"""From the engine's own description of a container to ours."""

import os
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from almagent.adapters.docker_engine import labels, logdirs
from almagent.adapters.docker_engine.labels import Owner
from almagent.core.model import Container, Health, State
from almagent.ports import Unavailable

STATUS_FILE = "container_status"
MAX_STATUS = 64  # bytes; the words are `installing` and `complete`, an image may have its own
NEVER = "0001-01-01T00:00:00Z"  # Go's zero time: it has not happened
EVERY_HOST_ADDRESS = {"", "0.0.0.0"}  # noqa: S104  as Docker writes it
RUNNING = {State.RUNNING, State.PAUSED}


def observe(client: Any, owner: Owner, logs: Path) -> tuple[Container, ...]:
    """All containers of the owner, the oldest first."""
    found = []
    for row in client.containers(all=True, filters=owner.filters):
        with suppress(client.NotFound):  # it went away between the two calls
            found.append(read(client.inspect_container(row["Id"]), owner, logs))
    return tuple(sorted(found, key=lambda c: (c.created, c.id)))


def read(data: Mapping[str, Any], owner: Owner, logs: Path) -> Container:
    """One container. Raises Unavailable for a state that is not in our vocabulary."""
    now, host, marks = data["State"], data["HostConfig"], data["Config"]["Labels"] or {}
    state = _state(data["Id"], now["Status"])
    endpoint = data["NetworkSettings"]["Networks"].get(owner.network)
    return Container(
        id=data["Id"],
        name=data["Name"].lstrip("/"),
        revision=marks.get(labels.REVISION, ""),
        image_id=data["Image"],
        state=state,
        created=_epoch(data["Created"]),
        ports=labels.read_ports(marks.get(labels.PORTS, "")),
        published=_is_published(host.get("PortBindings")),
        address=address(endpoint),
        doors=_doors(data["NetworkSettings"].get("Ports"), endpoint),
        pid=now.get("Pid", 0) if state in RUNNING else 0,
        restarts=(host.get("RestartPolicy") or {}).get("Name", "") not in {"", "no"},
        incarnation="" if now["StartedAt"] == NEVER else now["StartedAt"],
        up_for=_up_for(now, running=state in RUNNING),
        exit_code=_exit_code(state, now.get("ExitCode", 0)),
        oom_killed=now.get("OOMKilled", False),
        health=_health(now.get("Health")),
        status_word=status_word(logdirs.source(data, logs)),
        image=marks.get(labels.IMAGE, ""),
        image_digest=marks.get(labels.DIGEST, ""),
        commit=marks.get(labels.COMMIT, ""),
    )


def address(endpoint: Mapping[str, Any] | None) -> str:
    """The address on one network: the present one, else the fixed one it will have; "" without either."""
    if endpoint is None:
        return ""
    fixed: str = (endpoint.get("IPAMConfig") or {}).get("IPv4Address", "")
    present: str = endpoint.get("IPAddress") or ""
    return present or fixed


def status_word(directory: Path | None) -> str | None:
    """The first word of the status file in the container's log directory, None without a sound one.

    The container writes there: what it put in the file's place may be a link, a pipe or endless.
    """
    if directory is None:
        return None
    try:
        handle = os.open(directory / STATUS_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        words = os.read(handle, MAX_STATUS).decode("ascii", "replace").split()
    except OSError:
        return None
    finally:
        os.close(handle)
    if not words or not words[0].replace("_", "").replace("-", "").isalnum():
        return None
    return words[0] if words[0].isascii() else None


def _state(container_id: str, word: str) -> State:
    try:
        return State(word)
    except ValueError:
        raise Unavailable(
            f"cannot read container {container_id[:12]}: unknown state {word}"
        ) from None


def _health(data: Mapping[str, Any] | None) -> Health | None:
    word = (data or {}).get("Status", "none")
    return Health(word) if word in set(Health) else None


def _exit_code(state: State, code: int) -> int | None:
    """Docker says 0 also for what has not ended; a container that could not start has a code of 125-127."""
    ended = state in {State.EXITED, State.DEAD, State.RESTARTING, State.REMOVING}
    return code if ended or (state is State.CREATED and code) else None


def _is_published(bindings: Mapping[str, Any] | None) -> bool:
    """On every host address, as the recreate strategy publishes; a door is on one."""
    rows = [row for port in (bindings or {}).values() for row in port or ()]
    return any(row["HostIp"] in EVERY_HOST_ADDRESS for row in rows)


def _doors(ports: Mapping[str, Any] | None, endpoint: Mapping[str, Any] | None) -> dict[int, str]:
    """Port -> what is published for it on the gateway of the agent's network; {} while it does not run."""
    gateway = (endpoint or {}).get("Gateway") or None
    return {
        int(name.removesuffix("/tcp")): f"{row['HostIp']}:{row['HostPort']}"
        for name, rows in (ports or {}).items()
        for row in rows or ()
        if row["HostIp"] == gateway
    }


def _up_for(now: Mapping[str, Any], *, running: bool) -> float:
    """Seconds of the present or last run. The kernel's process clock is asked first: it never jumps."""
    if now["StartedAt"] == NEVER:
        return 0.0
    if running:
        age = _process_age(now.get("Pid", 0))
        return age if age is not None else max(0.0, time.time() - _epoch(now["StartedAt"]))
    return max(0.0, _epoch(now["FinishedAt"]) - _epoch(now["StartedAt"]))


def _process_age(pid: int) -> float | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf(
            "SC_CLK_TCK"
        )  # field 22 of proc(5): ticks since boot
    except (OSError, ValueError, IndexError):
        return None
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)


def _epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
