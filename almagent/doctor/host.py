"""The host itself: programs, the kernel's nftables, rights, the cloud it is in."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import subprocess
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import suppress

from almagent.adapters import metadata as clouds
from almagent.adapters.metadata.session import SwitchedOff
from almagent.adapters.router import CANNOT_CHANGE, unsupported_it_seems
from almagent.clouds import CLOUDS
from almagent.doctor.directories import obstacle
from almagent.doctor.finding import Finding, Level, fail, ok, warn
from almagent.doctor.patient import CALL, Patient
from almagent.ports import PortError

OPENSSH = ("openssh-client", "openssh-clients")  # Debian's name and Fedora's
AZURE_TAG = "7783-7084-3265-9085-8269-3286-77"  # the chassis asset tag of Azure; Hyper-V has none
# Services, wherever they are called so.
TIMEKEEPERS = ("chrony", "chronyd", "ntpsec", "ntp", "ntpd", "openntpd")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"  # root's, whoever asks


def install(deb: str, rpm: str = "", *, verb: str = "install") -> str:
    """The command of this host; `rpm`: what Fedora calls the package, if it is another name."""
    if not _is_debian():
        return f"dnf {verb} -y {rpm or deb}"
    # After a bare dpkg -i apt does nothing else before; and it might as well remove this package.
    whole = "apt-get install -f -y --no-remove; " if _lacks_dependencies() else ""
    return f"apt-get update; {whole}apt-get {verb} -y {deb}"


def keep_time(patient: Patient) -> str:
    """Where something keeps the time already, that one is to do it: another package would replace it."""
    for service in filter(patient.has_service, TIMEKEEPERS):
        return f"systemctl restart {service}; if it stays so, its time servers do not answer"
    if _is_debian():
        return f"{install('systemd-timesyncd')}; systemctl enable --now systemd-timesyncd"
    return f"{install('chrony')}; systemctl enable --now chronyd"


def _is_debian() -> bool:
    return shutil.which("apt-get") is not None


def _lacks_dependencies() -> bool:
    """Whether this package was unpacked and could not be configured."""
    query = ("dpkg-query", "--show", "--showformat=${db:Status-Status}", "almagent")
    with suppress(OSError, subprocess.TimeoutExpired):
        asked = subprocess.run(query, capture_output=True, text=True, check=False, timeout=CALL)
        return asked.stdout in {"unpacked", "half-configured"}
    return False


async def _program(packages: tuple[str, ...], *command: str, judged: bool = True) -> Finding:
    """`judged`: its exit code tells whether it works."""
    name = command[0]
    try:
        async with asyncio.timeout(CALL):
            code, said = await _run(command)
    except TimeoutError:
        problem = f"does not end within {CALL:g} s"
    except OSError as exc:
        return fail(f"cannot run {name}: {exc.strerror}", install(*packages))
    else:
        if code == 0 or not judged:
            return ok(said)
        problem = f"ends with exit code {code}: {said}"
    anew = install(*packages, verb="reinstall")
    fix = f"mend or remove {shutil.which(name)}; then: {anew}"
    return fail(f"{shlex.join(command)} {problem}", fix)


async def _run(command: tuple[str, ...]) -> tuple[int | None, str]:
    """Its exit code and the first line it says. Raises OSError."""
    child = await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, start_new_session=True
    )
    try:
        out, err = await child.communicate()
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # with what it has started
            await child.wait()
    return child.returncode, (out or err).decode(errors="replace").split("\n")[0].strip()


async def git(_patient: Patient) -> Finding:
    return await _program(("git",), "git", "--version")


async def ssh(_patient: Patient) -> Finding:
    return await _program(OPENSSH, "ssh", "-V")


async def ssh_keygen(_patient: Patient) -> Finding:
    """It has no version of its own to tell, and fails when asked for help."""
    finding = await _program(OPENSSH, "ssh-keygen", "-?", judged=False)
    return finding if finding.level is Level.FAIL else ok("as ssh")


async def nftables(patient: Patient) -> Finding:
    strategy = patient.settings.deploy.strategy
    if strategy == "recreate":
        return ok("not needed: deploy.strategy is recreate")
    reason = await unsupported_it_seems()
    if reason is None:
        return ok("the kernel takes the rules of this agent")
    fix = "modprobe -a nf_tables nf_nat"
    if reason == CANNOT_CHANGE:
        fix = "mount -o remount,rw /proc/sys"
    elif shutil.which("nft") is None:
        fix = install("nftables")
    if strategy == "switch":
        return fail(f"{reason}: deploy.strategy asks for it", fix)
    return fail(
        f"{reason}; releases would lose requests", f"{fix}; or set deploy.strategy to recreate"
    )


async def permissions(patient: Patient) -> Finding:
    if os.geteuid() != 0:
        return fail("not root: Docker, nftables and the state need it", f"sudo {patient.again}")
    problems = [w for w in patient.loaded.warnings if "chmod" in w]
    if problems:
        files = [w.partition(": ")[0] for w in problems]
        return fail("; ".join(problems), shlex.join(["chmod", "600", *files]))
    if not patient.known:
        file = patient.loaded.file
        return ok(f"root, and nobody else can read {file}" if file else "root")
    return _directories(patient) or ok("root, and nobody else can read settings and state")


def _directories(patient: Patient) -> Finding | None:
    """What is wrong with them."""
    state = patient.settings.state_dir
    for key, path in {"state_dir": state, "runtime_dir": patient.settings.runtime_dir}.items():
        found = obstacle(path)
        if found:
            text, fix = found
            return fail(f"{key}: {text}", f"{fix}; or set {key} to a place that can be written")
    if state.exists() and state.stat().st_mode & 0o077:
        return warn(f"others can look into {state}", shlex.join(["chmod", "700", str(state)]))
    return None


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
        fix = _let_reach(patient, f"the metadata service of {found.name}")
        if isinstance(exc, SwitchedOff):
            fix = "switch the metadata service on for this instance, at its cloud"
        return fail(f"{found.name}: {exc}", f"{fix}; or correct cloud.provider")
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
        f"{_let_reach(patient, 'http://169.254.169.254')}; or set cloud.provider to none",
    )


def _let_reach(patient: Patient, service: str) -> str:
    endpoint = patient.settings.cloud.endpoint
    if endpoint:
        return f"correct cloud.endpoint, which is {endpoint}"
    return f"let this host reach {service}"


def _cloud_makers() -> tuple[str, ...]:
    return tuple(maker for name in CLOUDS for maker in clouds.class_of(name).makers)


def _firmware(patient: Patient, name: str) -> str:
    try:
        return patient.path(f"/sys/class/dmi/id/{name}").read_text().strip()
    except OSError:
        return ""
