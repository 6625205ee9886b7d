"""A machine with a booted systemd and no network: a container of the Docker engine of this host."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.peers.images import LABEL
from tests.system import rootfs

PATIENCE = 60.0  # seconds for one command, and for what it brings about

OPTIONS = (
    *("--network", "none", "--stop-signal", "SIGRTMIN+3", "--cgroupns", "private"),
    # As --privileged, which an engine that itself lacks CAP_SYS_RESOURCE cannot grant.
    *("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE"),
    *("--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"),
    *("--security-opt", "apparmor=unconfined"),
    *("--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp"),
    # Else the inner engine's layers would lie on this container's own layers.
    *("--volume", "/var/lib/docker", "--volume", "/var/lib/containerd"),
)


@dataclass(frozen=True)
class Machine:
    container: str

    def boot(self) -> None:
        """Returns when every unit has started."""
        _docker("start", self.container)
        deadline = time.monotonic() + PATIENCE
        state = ""
        while state not in {"running", "degraded"}:
            assert time.monotonic() < deadline, f"the machine has not booted: {state}"
            time.sleep(0.1)
            state = self.attempt("systemctl", "is-system-running", "--wait").stdout.strip()
        failed = self.run("systemctl", "--failed", "--no-legend", "--plain")
        assert state == "running", f"units that failed: {failed}"
        # As on a real machine; not before, or its udev would handle the devices of this host.
        self.run("mount", "-o", "remount,rw", "/sys")

    def shut_down(self) -> None:
        _docker("stop", "--time", "20", self.container)

    def run(self, *command: str, stdin: str | bytes = b"", timeout: float = PATIENCE) -> str:
        """What it prints. Fails the test when it fails."""
        done = self.attempt(*command, stdin=stdin, timeout=timeout)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def attempt(
        self, *command: str, stdin: str | bytes = b"", timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        inside = ["docker", "exec", "--interactive", self.container, *command]
        done = subprocess.run(inside, input=data, capture_output=True, timeout=timeout, check=False)
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        return subprocess.CompletedProcess(command, done.returncode, out, err)

    def shell(self, script: str, timeout: float = PATIENCE) -> str:
        return self.run("bash", "-euo", "pipefail", "-c", script, timeout=timeout).strip()

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        self.run("install", "-D", f"--mode={mode:o}", "/dev/stdin", path, stdin=content)

    def copy_in(self, source: Path, path: str) -> None:
        _docker("cp", str(source), f"{self.container}:{path}")

    def property(self, name: str, unit: str = "almagent") -> str:
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def journal(self, unit: str = "almagent") -> str:
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")

    def until(
        self, condition: Callable[[], object], what: str, patience: float = PATIENCE
    ) -> float:
        """Seconds until `condition` held."""
        began = time.monotonic()
        while not condition():
            waited = time.monotonic() - began
            assert waited < patience, f"{what}: not within {patience:g} s\n{self.journal()[-4000:]}"
            time.sleep(0.1)
        return time.monotonic() - began


@contextmanager
def booted(image: str, session: str) -> Iterator[Machine]:
    create = ["docker", "create", "--label", f"{LABEL}={session}", *OPTIONS]
    command = [*create, image, "/bin/sh", "-ec", rootfs.BOOT]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    machine = Machine(made.stdout.strip())
    try:
        machine.boot()
        yield machine
    finally:
        _docker("rm", "--force", "--volumes", machine.container)


def _docker(*command: str) -> None:
    subprocess.run(["docker", *command], capture_output=True, check=True)
