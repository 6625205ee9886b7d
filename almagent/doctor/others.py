"""Who else may be at work here: a second agent, or the original of 2019."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shlex
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import suppress
from pathlib import Path
from typing import Any

from almagent import original as old
from almagent.adapters.docker_engine.labels import STACK
from almagent.adapters.threads import Door
from almagent.asking import CannotAsk, NotRunning, ask
from almagent.doctor.finding import Finding, fail, ok, warn
from almagent.doctor.patient import CALL, Patient
from almagent.ports import PortError

LOCK = "almagent.lock"

DNAT = re.compile(r"--dport (\d+) .*-j DNAT --to-destination [\d.]+:\d+")


async def second_agent(patient: Patient) -> Finding:
    s = patient.settings
    ours, own = (s.stack_id, s.flag), s.runtime_dir / LOCK
    locks = sorted(_locks_in_use() - {own})
    status, *others = await asyncio.gather(*(_status(lock.parent) for lock in (own, *locks)))
    for lock, other in zip(locks, others, strict=True):
        if other is not None and (other["stack_id"], other["flag"]) == ours:
            text = f"process {other['pid']} serves the same stack and flag from {lock.parent}"
            return fail(text, f"end one of the two: {_end(patient, str(other['pid']))}")
    process = holder(own)
    if process is None:
        return ok("none runs")
    who = f"process {process}" if process else "a process"
    kill = "kill" if status else "kill -KILL"  # a stopped process hears of nothing else
    end = _end(patient, process, kill) if process else f"fuser -k {shlex.quote(str(own))}"
    if status is None:
        return fail(f"{who} holds {own}, but does not answer", f"end it: {end}")
    if (status["stack_id"], status["flag"]) != ours:
        text = f"{who} serves {status['stack_id']}, flag {status['flag']}, from {own.parent}"
        return fail(text, f"give this agent a runtime_dir of its own; or end that one: {end}")
    return ok(f"none; {who} is this agent, phase {status['phase']}")


async def original(patient: Patient) -> Finding:
    """Two agents on one host take each other's ports away."""
    cron = old.crontabs(patient.root)
    script = patient.path(old.SHUTDOWN).exists()
    containers = await _containers(patient)
    rules = await _stale_rules(patient)
    running = [name for name, runs in containers.items() if runs]
    found = [
        *(f"cron lines in {file}" for file in cron),
        *([f"a script that ends all containers at shutdown, {old.SHUTDOWN}"] if script else []),
        *(f"container {name}{' runs' if runs else ''}" for name, runs in containers.items()),
        *(f"iptables rule for port {DNAT.search(rule)[1]}" for rule in rules),  # type: ignore[index]
    ]
    if not found:
        used = patient.path(old.SETTINGS)
        return ok("not at work here" + (f"; its settings are in {used}" if used.exists() else ""))
    text, fix = ", ".join(found), _removal(cron, script, containers, rules)
    return fail(text, fix) if cron or script or running else warn(text, fix)


# --- a second agent ---


def holder(lock: Path) -> str | None:
    """The number of the process that holds it, "" when it is not told; None: nobody does."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        number = os.read(descriptor, 20).decode(errors="replace").strip()
        return number if number.isdigit() else ""
    finally:
        os.close(descriptor)
    return None


def _locks_in_use() -> set[Path]:
    """Of all agents on this host, as far as their open files can be seen."""
    found = set()
    for process in _lock_holders():
        with suppress(OSError):  # ended meanwhile, or not ours to look at
            names = (file.readlink() for file in Path("/proc", process, "fd").iterdir())
            found |= {name for name in names if name.name == LOCK}
    return found


def _lock_holders() -> set[str]:
    """Processes that hold a lock of flock(2), of whatever file: proc_locks(5)."""
    rows = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    return {row[4] for row in rows if row[1] == "FLOCK"}


def _end(patient: Patient, process: str, kill: str = "kill") -> str:
    """A service that is killed may be started anew; a user's own manager is not ours to stop."""
    with suppress(OSError):
        for line in patient.path(f"/proc/{process}/cgroup").read_text().splitlines():
            parts = line.split("/")  # cgroups(7)
            services = [part for part in parts if part.endswith(".service")]
            if services and "user.slice" not in parts:
                return f"systemctl stop {shlex.quote(services[-1])}"
    return f"{kill} {process}"


async def _status(directory: Path) -> dict[str, Any] | None:
    """None: there is no answer."""

    def read() -> dict[str, Any] | None:
        try:
            return ask(directory, "/v1/status")
        except (NotRunning, CannotAsk):
            return None

    try:
        return await Door("status").call(read, timeout=CALL)
    except TimeoutError:
        return None


# --- the original ---


async def _containers(patient: Patient) -> dict[str, bool]:
    """Name -> whether it runs, of containers with the original's names that are not an agent's of ours."""
    with suppress(PortError):
        return {
            c["Names"][0].lstrip("/"): c["State"] == "running"
            for c in (await patient.engine()).containers
            if c["Names"]
            and c["Names"][0] in old.CONTAINERS
            and STACK not in (c.get("Labels") or {})
        }
    return {}


async def _stale_rules(patient: Patient) -> list[str]:
    """It puts its rules into Docker's own chain; those that no running container explains are its."""
    rules = await _docker_chain()
    with suppress(PortError):
        containers = (await patient.engine()).containers
        published = {str(row.get("PublicPort")) for c in containers for row in c["Ports"]}
        return [rule for rule in rules if DNAT.search(rule)[1] not in published]  # type: ignore[index]
    return []


async def _docker_chain() -> list[str]:
    try:
        child = await asyncio.create_subprocess_exec(
            *("iptables", "-w", "2", "-t", "nat", "-S", "DOCKER"),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=DEVNULL,
        )
    except OSError:
        return []
    try:
        out, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return [line for line in out.decode(errors="replace").splitlines() if DNAT.search(line)]


def _removal(cron: list[Path], script: bool, containers: dict[str, bool], rules: list[str]) -> str:
    """In the order in which traffic goes on; docs/migration.md has it at length."""
    steps = [f"sed -i /{old.PROGRAM}/d {file}" for file in cron]
    if script:
        name = Path(old.SHUTDOWN).name
        unlink = {
            "update-rc.d": f"update-rc.d -f {name} remove",
            "chkconfig": f"chkconfig --del {name}",
        }
        steps += [command for program, command in unlink.items() if shutil.which(program)]
        steps.append(f"rm {old.SHUTDOWN}")
    if any(containers.values()):
        steps.append("start almagent, wait until almagent status says uptodate, and 2 minutes more")
    if containers:
        steps.append(f"docker rm -f {' '.join(sorted(containers))}")
    steps += [f"iptables -t nat {rule.replace('-A', '-D', 1)}" for rule in rules]
    return "; then ".join(steps)
