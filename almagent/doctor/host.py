"""The host itself: programs, the kernel's nftables, rights, the cloud it is in."""

from __future__ import annotations

import asyncio
import os
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import suppress

from almagent.adapters import metadata as clouds
from almagent.adapters.router import unsupported_it_seems
from almagent.clouds import CLOUDS
from almagent.doctor.finding import Finding, Level, fail, ok, warn
from almagent.doctor.patient import Patient
from almagent.ports import PortError

AS_ROOT = "sudo almagent doctor"
GIT = "apt-get install git (or: dnf install git)"
OPENSSH = "apt-get install openssh-client (or: dnf install openssh-clients)"
NFTABLES = "apt-get install nftables (or: dnf install nftables)"

AZURE_TAG = "7783-7084-3265-9085-8269-3286-77"  # the chassis asset tag of Azure; Hyper-V has none


async def _program(name: str, install: str, *arguments: str) -> Finding:
    try:
        child = await asyncio.create_subprocess_exec(
            name, *arguments, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
        )
    except OSError as exc:
        return fail(f"cannot run {name}: {exc.strerror}", install)
    try:
        out, err = await child.communicate()
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    lines = (out or err).decode(errors="replace").split("\n")
    return ok(lines[0].strip())


async def git(_patient: Patient) -> Finding:
    return await _program("git", GIT, "--version")


async def ssh(_patient: Patient) -> Finding:
    return await _program("ssh", OPENSSH, "-V")


async def ssh_keygen(_patient: Patient) -> Finding:
    """It has no version of its own to tell."""
    finding = await _program("ssh-keygen", OPENSSH, "-?")
    return finding if finding.level is Level.FAIL else ok("as ssh")


async def nftables(patient: Patient) -> Finding:
    strategy = patient.settings.deploy.strategy
    if strategy == "recreate":
        return ok("not needed: deploy.strategy is recreate")
    reason = await unsupported_it_seems()
    if reason is None:
        return ok("the kernel takes the rules of this agent")
    fix = NFTABLES if shutil.which("nft") is None else "as root: modprobe -a nf_tables nf_nat"
    if strategy == "switch":
        return fail(f"{reason}: deploy.strategy asks for it", fix)
    return fail(
        f"{reason}; releases would lose requests", f"{fix}; or set deploy.strategy to recreate"
    )


async def permissions(patient: Patient) -> Finding:
    if os.geteuid() != 0:
        return fail("not root: Docker, nftables and the state need it", AS_ROOT)
    problems = [w for w in patient.loaded.warnings if "chmod" in w]
    if problems:
        files = " ".join(w.partition(": ")[0] for w in problems)
        return fail("; ".join(problems), f"chmod 600 {files}")
    state = patient.settings.state_dir
    if state.exists() and state.stat().st_mode & 0o077:
        return warn(f"others can look into {state}", f"chmod 700 {state}")
    return ok("root, and nobody else can read settings and state")


async def metadata(patient: Patient) -> Finding:
    cloud = patient.settings.cloud
    if cloud.provider == "none":
        return ok("not wanted: cloud.provider is none")
    found = await clouds.detect(cloud.provider, cloud.endpoint)
    if found is None:
        return _no_cloud(patient)
    try:
        instance_id = await found.instance_id()
    except PortError as exc:
        fix = f"let this host reach the metadata service of {found.name}, or correct cloud.provider"
        return fail(f"{found.name}: {exc}", fix)
    return ok(f"{found.name}, instance {instance_id}")


def _no_cloud(patient: Patient) -> Finding:
    """The firmware tells whose machine it is, also where a firewall keeps the metadata service away."""
    maker = _firmware(patient, "sys_vendor")
    if _firmware(patient, "chassis_asset_tag") == AZURE_TAG:
        maker = "Microsoft Azure"
    elif not maker.lower().startswith(_cloud_makers()):
        return ok("no cloud: its notices are not watched")
    return fail(
        f"this is a machine of {maker}, but no metadata service answers: its notices are missed",
        "let this host reach http://169.254.169.254, or set cloud.provider to none",
    )


def _cloud_makers() -> tuple[str, ...]:
    return tuple(maker for name in CLOUDS for maker in clouds.class_of(name).makers)


def _firmware(patient: Patient, name: str) -> str:
    try:
        return patient.path(f"/sys/class/dmi/id/{name}").read_text().strip()
    except OSError:
        return ""
