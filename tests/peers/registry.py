"""A real registry (the distribution project's) with a password, over HTTP or over TLS with its own CA."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker

USER, PASSWORD = "alice", 'canary-pa$$ "word"'
PATIENCE = 10.0  # seconds until it answers
CERTIFICATES = Path("/etc/docker/certs.d")

CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}
auth: {{htpasswd: {{realm: test, path: {root}/htpasswd}}}}
http: {{addr: "{address}"{tls}}}
"""
TLS = ", tls: {{certificate: {root}/cert.pem, key: {root}/key.pem}}"


@dataclass(frozen=True)
class RunningRegistry:
    api: docker.APIClient
    address: str  # host:port, as in references
    ca: Path | None = None

    def push(self, image: str, name: str) -> str:
        """`image`, known to the engine, is in the registry as `name` (repository:tag); its reference here.

        The engine does not keep that name.
        """
        reference = f"{self.address}/{name}"
        repository, _, tag = reference.rpartition(":")
        self.api.tag(image, repository, tag)
        login = {"username": USER, "password": PASSWORD}
        try:
            lines = self.api.push(repository, tag, stream=True, decode=True, auth_config=login)
            errors = [line["error"] for line in lines if "error" in line]
        finally:
            self.api.remove_image(reference)
        if errors:
            raise RuntimeError(f"cannot push {reference}: {errors[0]}")
        return reference


@contextmanager
def registry(
    api: docker.APIClient, root: Path, host: str = "127.0.0.1", *, tls: bool = False
) -> Iterator[RunningRegistry]:
    """`root`: an empty directory. With `tls` and a host that is not loopback the engine checks its CA."""
    address = f"{host}:{_free_port(host)}"
    ca = _make_certificate(root, host) if tls else None
    _write(root, address, tls=tls)
    process = subprocess.Popen(
        ["docker-registry", "serve", root / "config.yml"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(address)
        yield RunningRegistry(api, address, ca)
    finally:
        process.terminate()
        process.wait(PATIENCE)


@contextmanager
def trusted(running: RunningRegistry) -> Iterator[None]:
    """The engine knows the registry's CA, as an administrator would make it known."""
    folder = CERTIFICATES / running.address
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    certificate = folder / "ca.crt"
    try:
        shutil.copy(running.ca or "", certificate)
        yield
    finally:
        certificate.unlink(missing_ok=True)
        for path in made:
            path.rmdir()


def _write(root: Path, address: str, *, tls: bool) -> None:
    login = subprocess.run(
        ["htpasswd", "-i", "-nB", "-C", "4", USER],
        input=PASSWORD,
        capture_output=True,
        text=True,
        check=True,
    )
    (root / "htpasswd").write_text(login.stdout)
    part = TLS.format(root=root) if tls else ""
    (root / "config.yml").write_text(CONFIG.format(root=root, address=address, tls=part))


def _make_certificate(root: Path, host: str) -> Path:
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=test registry", "-addext", f"subjectAltName=IP:{host}"]
    files = ["-keyout", str(root / "key.pem"), "-out", str(root / "cert.pem")]
    subprocess.run([*request, *names, *files], check=True, capture_output=True)
    return root / "cert.pem"


def _free_port(host: str) -> int:
    with socket.socket() as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
    return port


def _wait_for(address: str) -> None:
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host, int(port)), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"the registry at {address} does not answer")
