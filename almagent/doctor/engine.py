"""The Docker engine, the room it has, and whether the ports of the document are free."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from almagent.adapters import sockets
from almagent.adapters.docker_engine.labels import Owner
from almagent.adapters.store import peek
from almagent.core.document import DocumentError, ports_of
from almagent.doctor.finding import Finding, fail, ok
from almagent.doctor.patient import Patient
from almagent.ports import PortError

MIB = 1 << 20


async def docker(patient: Patient) -> Finding:
    host = patient.settings.docker.host
    try:
        engine = await patient.engine()
    except PortError as exc:
        install = "apt-get install docker.io (or docker-ce); systemctl enable --now docker"
        fix = f"{install}; or correct docker.host, which is {host}"
        return fail(str(exc), fix)
    return ok(f"version {engine.version}, API {engine.api}")


async def disk(patient: Patient) -> Finding:
    needed = patient.settings.docker.min_free_bytes
    places = [_existing(patient.settings.state_dir)]
    with suppress(PortError):  # the engine has a line of its own
        places.append((await patient.engine()).root)
    rooms = {str(place): room for place in places if (room := _free(place)) is not None}
    short = {place: room for place, room in rooms.items() if room < needed}
    told = ", ".join(f"{room // MIB} MiB free at {place}" for place, room in rooms.items())
    if short:
        text = f"{told}; docker.min_free_bytes asks for {needed // MIB} MiB"
        return fail(text, f"make room: docker system df; du -xh {next(iter(short))} | sort -h")
    return ok(told)


async def ports(patient: Patient) -> Finding:
    wanted = await _wanted_ports(patient)
    if wanted is None:
        return ok("not known: the document tells none")
    busy = await sockets.listeners(wanted)
    ours = _published(await _our_containers(patient))
    taken = {port: name for port, name in sorted(busy.items()) if port not in ours}
    if not taken:
        return ok(f"free for this agent: {', '.join(map(str, wanted)) or 'none needed'}")
    told = ", ".join(f"{port} by {name or 'an unknown process'}" for port, name in taken.items())
    numbers = " or ".join(f"sport = :{port}" for port in taken)
    return fail(f"taken: {told}", f"stop what listens there: ss -ltnp '( {numbers} )'")


async def _wanted_ports(patient: Patient) -> tuple[int, ...] | None:
    """Of the document, else of the last release that is remembered."""
    with suppress(DocumentError):  # the daemon tells
        ports = ports_of(await patient.document() or b"")
        if ports is not None:
            return ports
    memory: Any = peek(patient.settings.state_dir / "state.json").get("memory")
    release = memory.get("release") if isinstance(memory, dict) else None
    return tuple(release["ports"]) if isinstance(release, dict) else None


async def _our_containers(patient: Patient) -> list[Mapping[str, Any]]:
    owner = Owner(patient.settings.stack_id, patient.settings.flag)
    try:
        engine = await patient.engine()
    except PortError:
        return []
    return [c for c in engine.containers if owner.owns(c.get("Labels"))]


def _published(containers: list[Mapping[str, Any]]) -> set[int]:
    return {row["PublicPort"] for c in containers for row in c["Ports"] if "PublicPort" in row}


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _free(path: Path) -> int | None:
    try:
        disk = os.statvfs(path)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize
