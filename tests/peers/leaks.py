"""What a test session left behind on this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import docker

from tests.peers.docker_engine import NoEngineError, connect
from tests.peers.images import LABEL

MARK = "TEST_SESSION_MARK"  # in the environment of every process a session starts


@contextmanager
def _engine() -> Iterator[docker.APIClient | None]:
    """The engine of this machine, None when there is none: then nothing can be left on it."""
    try:
        api = connect()
    except NoEngineError:
        yield None
        return
    try:
        yield api
    finally:
        api.close()


def engine_objects() -> set[str]:
    """Containers and networks that any test session made, as lines for people."""
    with _engine() as api:
        if api is None:
            return set()
        rows = [("container", item["Names"][0], item) for item in api.containers(all=True)]
        rows += [("network", item["Name"], item) for item in api.networks()]
    owned = [(kind, name, _owner(item["Labels"])) for kind, name, item in rows]
    return {f"{kind} {name} of {owner}" for kind, name, owner in owned if owner}


def clear(session: str) -> None:
    """Remove the session's images, and first all that should not be there any more."""
    for number, _ in _marked(session):
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    with _engine() as api:
        if api is None:
            return
        for container in api.containers(all=True):
            if session in _owner(container["Labels"]):
                api.remove_container(container["Id"], force=True, v=True)
        for network in api.networks():
            if session in _owner(network["Labels"]):
                api.remove_network(network["Id"])
        for image in api.images(filters={"label": f"{LABEL}={session}"}):
            api.remove_image(image["Id"], force=True)


def _owner(labels: dict[str, str] | None) -> str:
    """What names the test session that made it, "" when none did."""
    labels = labels or {}
    stack = labels.get("almagent.stack", "")
    return labels.get(LABEL, "") or (stack if stack.startswith("test-") else "")


def nft_tables() -> set[str]:
    if shutil.which("nft") is None or os.geteuid() != 0:
        return set()
    answer = subprocess.run(["nft", "--json", "list", "tables"], check=True, capture_output=True)
    rows = json.loads(answer.stdout)["nftables"]
    tables = [row["table"] for row in rows if "table" in row]
    return {
        f"nft table {table['family']} {table['name']}"
        for table in tables
        if table["name"].startswith("almagent")
    }


def processes(session: str) -> set[str]:
    """Processes that carry the session's mark, however they were detached from it."""
    return {f"process {number} {command}" for number, command in _marked(session)}


def _marked(session: str) -> Iterator[tuple[int, str]]:
    mark = f"{MARK}={session}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                yield int(entry.name), command
        except OSError:
            continue  # ended meanwhile, or not ours to read
