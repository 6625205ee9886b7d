"""A Docker engine of the test's own, which may be stopped, killed and filled up.

It runs in a network namespace of its own: in the host's it would change the bridge and the packet
filter of the engine that is there.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker

from tests.peers.netns import Machine, run

PATIENCE = 60.0  # seconds; on a busy machine it takes its time to start
ENGINE = shutil.which("dockerd") or "/usr/sbin/dockerd"


class PrivateEngine:
    """One data directory and socket; the process may come and go."""

    def __init__(self, root: Path, machine: Machine, data: Path) -> None:
        self._root = root
        self.data = data
        self.machine = machine
        self.socket = root / "docker.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.live_restore = False  # containers outlive the engine; from the next start on

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Returns once it answers."""
        (self._root / "docker.pid").unlink(missing_ok=True)
        (self._root / "exec/containerd/containerd.pid").unlink(missing_ok=True)
        with (self._root / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["nsenter", f"--net={self.machine.path}", ENGINE, *self._options()],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"cannot start a private engine: {self._last_words()}")
            time.sleep(0.1)

    def client(self) -> docker.APIClient:
        return docker.APIClient(self.host, version="auto", timeout=30)

    def freeze(self) -> None:
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)

    def kill(self) -> None:
        """As a crash: its containers are left to themselves."""
        self._send(signal.SIGKILL)
        self._wait()

    def stop(self) -> None:
        """In good order; its containers end with it."""
        if self._process is not None:
            self.thaw()
            self._send(signal.SIGTERM)
            self._wait()

    def _options(self) -> list[str]:
        return [
            f"--host={self.host}",
            f"--data-root={self.data}",
            f"--exec-root={self._root / 'exec'}",
            f"--pidfile={self._root / 'docker.pid'}",
            "--max-download-attempts=1",  # the default waits more than a minute before it gives up
            "--shutdown-timeout=1",
            *(["--live-restore"] if self.live_restore else []),
        ]

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _wait(self) -> None:
        if self._process is not None:
            self._process.wait(PATIENCE)
            self._process = None

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            try:
                sock.connect(str(self.socket))
                sock.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return b" 200 " in sock.recv(64)
            except OSError:
                return False

    def _last_words(self) -> str:
        return (self._root / "dockerd.log").read_text()[-500:]

    def end_strays(self) -> None:
        """After a kill its containerd and shims live on."""
        mark = str(self._root).encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                ours = mark in (entry / "cmdline").read_bytes()
                if ours:
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue


@contextmanager
def private_engine(root: Path, size: str = "") -> Iterator[PrivateEngine]:
    """`root`: an empty directory with a short path. `size`: of its disk, as for tmpfs; "": the host's."""
    machine = Machine(f"test-{secrets.token_hex(3)}")
    data = root / "data"
    data.mkdir()
    machine.create()
    engine = PrivateEngine(root, machine, data)
    try:
        if size:
            run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(data))
        engine.start()
        yield engine
    finally:
        engine.stop()
        engine.end_strays()
        for mount in _mounts_below(root):
            run("umount", "--lazy", mount, check=False)
        machine.delete()
        shutil.rmtree(root, ignore_errors=True)


def _mounts_below(root: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    paths = [line.split()[1] for line in lines]
    return sorted((path for path in paths if path.startswith(f"{root}/")), reverse=True)
