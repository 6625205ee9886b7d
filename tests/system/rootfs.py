"""The root file system that machines boot from: made once by mmdebstrap, kept outside the repository."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "libnss-systemd", "udev", "procps"),
    *("ca-certificates", "curl", "iproute2", "locales", "openssl", "python3", "sudo"),
    *("docker.io", "git", "iptables", "nftables", "openssh-client"),  # what the agent works with
    *("cloud-init", "docker-registry", "openssh-server", "rpm"),  # its peers
)
# A machine's first command. Docker's cgroup mounts may be of version 1, which systemd should not see;
# and without shared propagation LoadCredential= gives an empty directory.
BOOT = """\
umount -R /sys/fs/cgroup
mount -t cgroup2 -o rw,nosuid,nodev,noexec cgroup2 /sys/fs/cgroup
mount --make-rshared /
exec /lib/systemd/systemd
"""


def image() -> str:
    """The image's name, once the engine has it: at once, or two minutes for the first time.

    It is of this host's distribution, whose Python the package under test is built for.
    """
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    key = hashlib.sha256(repr((suite, PACKAGES)).encode()).hexdigest()[:12]
    name = f"almagent-test-machine:{key}"
    with _one_at_a_time() as cache:
        known = subprocess.run(
            ["docker", "image", "inspect", name], capture_output=True, check=False
        )
        if known.returncode != 0:
            archive = cache / f"machine-{key}.tar"
            if not archive.exists():
                _build(suite, archive)
            _do("docker", "import", "--change", "ENV container=docker", archive, name)
    return name


def forget(name: str) -> None:
    """The engine's copy goes; the archive stays in the cache."""
    subprocess.run(["docker", "image", "rm", name], capture_output=True, check=False)


@contextmanager
def _one_at_a_time() -> Iterator[Path]:
    """The cache, which no other session has meanwhile."""
    cache = Path(os.environ.get("ALMAGENT_TEST_CACHE", "/var/cache/almagent-tests"))
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield cache


def _build(suite: str, archive: Path) -> None:
    if shutil.which("mmdebstrap") is None:
        raise RuntimeError("cannot make a root file system: mmdebstrap is not installed")
    unfinished = archive.with_suffix(".unfinished.tar")
    include = f"--include={','.join(PACKAGES)}"
    _do("nice", "mmdebstrap", "--quiet", "--variant=minbase", include, suite, unfinished)
    unfinished.rename(archive)


def _do(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"cannot make a root file system: {done.stderr[-1000:]}")
