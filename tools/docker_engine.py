# ruff: noqa: INP001  a part of the script with-host, not of a package
"""A Docker engine for as long as somebody needs it, on a host where none runs.

It listens at Docker's usual address, so that every tool finds it, but keeps its data to itself: images and
containers of an engine that happens to be stopped are not touched. All that run at the same time share it;
the last one ends it and undoes what it did to the network.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import docker_network

SOCKET = Path("/var/run/docker.sock")
HOME = Path("/var/tmp/almagent-engine")  # noqa: S108  made by root, refused if it is there already
PID = HOME / "docker.pid"
LOG = HOME / "dockerd.log"
# Made by every engine, whatever its exec-root.
DIRECTORIES = ("/run/docker/plugins", "/run/docker", "/run/containerd/s", "/run/containerd")
BEFORE = HOME / "network-before.json"

LOCK_SECONDS = 180
START_SECONDS = 60
STOP_SECONDS = 40  # containers have ten of them to end


class CannotError(Exception):
    """One line for the person at the terminal."""


@contextmanager
def engine() -> Iterator[None]:
    with locked():
        if not present():
            start()
        shared = share()
    try:
        yield
    finally:
        if shared is not None:
            with locked():
                end_if_last(shared)


@contextmanager
def locked() -> Iterator[None]:
    """One start or end at a time on this host. A directory is the lock: no file to leave behind."""
    descriptor = os.open(HOME.parent, os.O_RDONLY)
    try:
        wait(LOCK_SECONDS, lambda: lock_now(descriptor), "cannot lock the Docker engine")
        yield
    finally:
        os.close(descriptor)


def lock_now(descriptor: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def share() -> int | None:
    """Count as a user of an engine that was started here; None when it is another's."""
    if not HOME.exists():
        return None
    descriptor = os.open(HOME, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def end_if_last(shared: int) -> None:
    last = lock_now(shared)
    os.close(shared)
    if last:
        end()


# --- start and end -------------------------------------------------------------------------------


def start() -> None:
    if HOME.exists():
        end()  # of an earlier run that was killed
    if os.geteuid() != 0:
        raise CannotError("cannot start a Docker engine: that takes root")
    HOME.mkdir(mode=0o711)
    BEFORE.write_text(json.dumps(docker_network.state()))
    configuration = HOME / "daemon.json"
    configuration.write_text(
        json.dumps(
            {
                "data-root": str(HOME / "data"),
                "exec-root": str(HOME / "exec"),
                "pidfile": str(PID),
                "hosts": [f"unix://{SOCKET}"],
            }
        )
    )
    sys.stderr.write("starting a Docker engine\n")
    with LOG.open("w") as log:
        process = subprocess.Popen(  # in a session of its own: Ctrl-C is not for it
            ["dockerd", "--config-file", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait(START_SECONDS, lambda: answers() or gave_up(process), "the Docker engine is not up")
    except BaseException as exc:
        tail = "".join(f"\n  {line}" for line in LOG.read_text().splitlines()[-15:])
        end(process.pid)
        if isinstance(exc, CannotError):
            raise CannotError(f"{exc}; its last words:{tail}") from None
        raise


def gave_up(process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is None:
        return False
    raise CannotError(f"cannot start a Docker engine: dockerd ended with {process.returncode}")


def end(pid: int = 0) -> None:
    """Undo `start`, whatever of it has happened."""
    with suppress(OSError, ValueError):
        pid = int(PID.read_text())
    if pid and is_ours(pid):
        empty()
        os.kill(pid, signal.SIGTERM)
        try:
            wait(STOP_SECONDS, lambda: not is_ours(pid), "")
        except CannotError:
            os.kill(pid, signal.SIGKILL)  # its containerd ends with it
            wait(STOP_SECONDS, lambda: not is_ours(pid), f"cannot end dockerd, process {pid}")
    if not answers():
        SOCKET.unlink(missing_ok=True)
    with suppress(OSError, ValueError):
        docker_network.restore(json.loads(BEFORE.read_text()))
    for directory in DIRECTORIES:
        with suppress(OSError):
            Path(directory).rmdir()  # unless something of another's is in it
    unmount_below(HOME)
    shutil.rmtree(HOME, ignore_errors=True)


def empty() -> None:
    """What a killed command has left in it: with it go the bridges and rules that the engine made for it."""
    kinds = (("container", ["--all"], ["--force"]), ("network", ["--filter", "type=custom"], []))
    for kind, options, force in kinds:
        docker = ["docker", "--host", f"unix://{SOCKET}", kind]
        with suppress(subprocess.TimeoutExpired):  # it hangs: then SIGTERM and SIGKILL are left
            if listed := say([*docker, "ls", "--quiet", *options]):
                say([*docker, "rm", *force, *listed.split()])


def say(command: list[str]) -> str:
    """What it prints. Raises TimeoutExpired."""
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=STOP_SECONDS
    ).stdout


def is_ours(pid: int) -> bool:
    """Alive and started with our configuration: a number that was given again is another's."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        return str(HOME).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()  # of a zombie: empty
    except OSError:
        return False


def unmount_below(directory: Path) -> None:
    """Nothing is mounted there after an orderly end."""
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        point = line.split()[1]
        if point.startswith(f"{directory}/"):
            subprocess.call(["umount", "--lazy", point])


# --- waiting -------------------------------------------------------------------------------------


def present() -> bool:
    """One answers, or the operator has named one, wherever it is."""
    return bool(os.environ.get("DOCKER_HOST")) or answers()


def answers() -> bool:
    with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
        connection.settimeout(5)
        connection.connect(str(SOCKET))
        connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        return b" 200 " in connection.recv(100)
    return False


def wait(seconds: float, ready: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise CannotError(f"{problem} after {seconds:g} s")
        time.sleep(0.1)
