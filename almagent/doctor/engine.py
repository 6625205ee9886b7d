"""The Docker engine, the room it has, and whether the ports of the document are free."""

from __future__ import annotations

import asyncio
import shlex
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from almagent.adapters import sockets
from almagent.adapters.docker_engine.labels import Owner
from almagent.adapters.store import peek
from almagent.core.document import DocumentError, read
from almagent.core.wire import WireError
from almagent.doctor.directories import existing, free
from almagent.doctor.finding import Finding, Level, fail, ok, warn
from almagent.doctor.host import SYSTEM_PATH, install
from almagent.doctor.others import LOCK, holder
from almagent.doctor.patient import Patient
from almagent.ports import PortError

MIB = 1 << 20
LEAST = 8 * MIB  # of the state itself, whose file is written anew beside the old one
UNITS = ("docker.service", "docker.socket")
CONNECT = 1.0  # seconds; what is on this host accepts at once


async def docker(patient: Patient) -> Finding:
    host = patient.settings.docker.host
    try:
        engine = await patient.engine()
    except PortError as exc:
        text, fix = str(exc), f"{_unmask(patient)}systemctl enable --now docker"
        if await _is_listened_on(host):
            fix = "systemctl restart docker"
            if "cannot reach" in text or "not valid" in text:
                text = f"what listens on {host} does not answer as a Docker engine"
        elif shutil.which("dockerd", path=SYSTEM_PATH) is None:
            fix = f"{install('docker.io', 'docker')}; {fix}"
        return fail(text, f"{fix}; or correct docker.host, which is {host}")
    return ok(f"version {engine.version}, API {engine.api}")


def _unmask(patient: Patient) -> str:
    """What comes before a masked unit can be started."""
    places = {unit: patient.path(f"/etc/systemd/system/{unit}") for unit in UNITS}
    masked = [unit for unit, place in places.items() if place.resolve() == Path("/dev/null")]
    return f"systemctl unmask {' '.join(masked)}; " if masked else ""


async def disk(patient: Patient) -> Finding:
    asked = patient.settings.docker.min_free_bytes
    needed = max(asked, LEAST)
    places = [existing(patient.settings.state_dir)]
    with suppress(PortError):  # the engine has a line of its own
        places.append((await patient.engine()).root)
    rooms = {str(place): room for place in places if (room := free(place)) is not None}
    short = {place: room for place, room in rooms.items() if room < needed}
    told = ", ".join(f"{room // MIB} MiB free at {place}" for place, room in rooms.items())
    if short:
        who = "docker.min_free_bytes asks for" if needed == asked else "the agent itself needs"
        text = f"{told}; {who} {-(-needed // MIB)} MiB"
        place = shlex.quote(next(iter(short)))
        return fail(text, f"make room: docker system df; du -xh {place} | sort -h")
    return ok(told)


async def ports(patient: Patient) -> Finding:
    finding = await _document_ports(patient)
    return (finding.level is Level.OK and await _metrics_taken(patient)) or finding


async def _document_ports(patient: Patient) -> Finding:
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


async def _metrics_taken(patient: Patient) -> Finding | None:
    """Only a warning: the agent works without being asked for metrics."""
    listen = patient.settings.metrics.listen
    address, _, port = listen.rpartition(":")
    if not listen or not await sockets.accepts(address, [int(port)], CONNECT):
        return None
    name = (await sockets.listeners([int(port)])).get(int(port))
    if not name or name == _name_of(holder(patient.settings.runtime_dir / LOCK)):
        return None  # not told, or this agent
    return warn(
        f"{listen} is taken by {name}: nobody can ask this agent for metrics there",
        f"choose another metrics.listen; or stop what listens there: ss -ltnp 'sport = :{port}'",
    )


def _name_of(process: str | None) -> str:
    """Its name; "" if that is not told."""
    with suppress(OSError):
        return Path("/proc", process or "", "comm").read_text().strip()
    return ""


async def _wanted_ports(patient: Patient) -> tuple[int, ...] | None:
    """Of the document, else of the last release that is remembered."""
    with suppress(DocumentError, WireError, PortError):  # the line document tells
        spec = read(await patient.document())
        if spec is not None and spec.ports is not None:
            return spec.ports
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


async def _is_listened_on(host: str) -> bool:
    url = urlsplit(host)
    try:
        async with asyncio.timeout(CONNECT):
            if url.scheme == "unix":
                _, writer = await asyncio.open_unix_connection(url.path)
            else:
                _, writer = await asyncio.open_connection(url.hostname, url.port)
    except OSError:  # TimeoutError is one
        return False
    writer.close()
    return True
