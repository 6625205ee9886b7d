"""Real git servers on loopback: https (git http-backend) with a password, ssh (sshd), and one that stays silent."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

USER, PASSWORD = "deploy", "pass/wörd@1"
BACKEND = (
    Path(subprocess.check_output(["git", "--exec-path"], text=True).strip()) / "git-http-backend"
)
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.com",
}


def git(*args: str, directory: Path, data: bytes | None = None, env: Mapping[str, str] = {}) -> str:
    command = ["git", "-C", str(directory), "-c", "protocol.file.allow=always", *args]
    done = subprocess.run(
        command, env={**ENVIRONMENT, **env}, input=data, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


class Repository:
    """A bare repository; commits are made in it without a working tree."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "-q", "--bare", "-b", "main", ".")
        self.git("config", "http.receivepack", "false")

    def git(self, *args: str, data: bytes | None = None) -> str:
        return git(*args, directory=self.path, data=data)

    def commit(
        self,
        files: Mapping[str, bytes | str],
        *,
        branch: str = "main",
        modes: Mapping[str, str] = {},
        fresh: bool = False,
    ) -> str:
        """A commit with these files added (`fresh`: nothing else); the new commit's name."""
        ref = f"refs/heads/{branch}"
        stream = [
            f"commit {ref}\ncommitter A <a@example.com> {self._clock()} +0000\ndata 2\nc\n".encode()
        ]
        if self._has(ref):
            stream.append(f"from {ref}^0\n".encode())
        if fresh:
            stream.append(b"deleteall\n")
        for path, text in files.items():
            data = text.encode() if isinstance(text, str) else text
            mode = modes.get(path, "100644")
            stream.append(f"M {mode} inline {path}\ndata {len(data)}\n".encode() + data + b"\n")
        self.git("fast-import", "--quiet", "--force", data=b"".join(stream))
        return self.git("rev-parse", ref)

    def _clock(self) -> int:
        """Each commit has a time of its own, so that equal trees differ as commits."""
        self._time = getattr(self, "_time", 1_700_000_000) + 1
        return self._time

    def _has(self, ref: str) -> bool:
        return ref in self.git("for-each-ref", "--format=%(refname)").split()

    def submodule(self, path: str) -> None:
        """Add a link to another repository's commit to the main branch."""
        line = f"M 160000 {'1' * 40} {path}\n"
        head = f"commit refs/heads/main\ncommitter A <a@example.com> {self._clock()} +0000\ndata 2\nc\n"
        self.git("fast-import", "--quiet", data=f"{head}from refs/heads/main^0\n{line}".encode())

    def raw_tree(self, entries: list[tuple[str, str, str]]) -> str:
        """A commit of a tree that git itself would not make: (mode, name, object) as they are."""
        body = b"".join(
            f"{mode} {name}\0".encode() + bytes.fromhex(sha) for mode, name, sha in entries
        )
        tree = self.git("hash-object", "-t", "tree", "--literally", "-w", "--stdin", data=body)
        commit = self.git("commit-tree", "-m", "raw", tree)
        self.git("update-ref", "refs/heads/main", commit)
        return commit

    def blob(self, data: bytes) -> str:
        return self.git("hash-object", "-w", "--stdin", data=data)


# --- https ---------------------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: GitHTTPS

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self._body())

    def log_message(self, *_args: object) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _serve(self, body: bytes) -> None:
        self.server.requests.append(self.path)
        self.server.hosts.append(self.headers["Host"])
        self.server.authorizations.append(self.headers.get("Authorization", ""))
        if self.server.redirect and self.headers["Host"] == self.server.host:
            return self._answer(302, {"Location": self.server.redirect + self.path}, b"")
        if self.server.status:
            return self._answer(self.server.status, {}, b"no")
        if self.server.password is not None and not self._known():
            return self._answer(401, {"WWW-Authenticate": 'Basic realm="git"'}, b"")
        return self._backend(body)

    def _known(self) -> bool:
        pair = f"{self.server.user}:{self.server.password}".encode()
        return self.headers.get("Authorization") == "Basic " + base64.b64encode(pair).decode()

    def _backend(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        env = {
            **ENVIRONMENT,
            "GIT_PROJECT_ROOT": str(self.server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run([BACKEND], env=env, input=body, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        status = int(headers.pop("Status", "200 OK").split()[0])
        self._answer(status, headers, content)

    def _answer(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class GitHTTPS(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, root: Path, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.certificate = certificate
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_name("key.pem"))
        self._context = context
        self.forget()

    def forget(self) -> None:
        """Back to a healthy server without a password."""
        self.user = USER
        self.password: str | None = None
        self.status = 0
        self.redirect = ""
        self.requests: list[str] = []
        self.hosts: list[str] = []
        self.authorizations: list[str] = []

    def finish_request(self, request: Any, client_address: Any) -> None:
        with suppress(OSError), self._context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def shutdown_request(self, request: Any) -> None:
        request.close()

    def handle_error(self, *_args: object) -> None:
        """A client that goes away is what some tests are about."""

    def url(self, repository: Repository, login: str = "") -> str:
        return f"https://{login}127.0.0.1:{self.server_port}/{repository.path.name}"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"


@contextmanager
def serving(server: GitHTTPS) -> Iterator[GitHTTPS]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def make_certificate(directory: Path) -> Path:
    """A certificate for 127.0.0.1 that only its own file vouches for."""
    certificate = directory / "ca.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    files = [
        "-nodes",
        "-days",
        "2",
        "-keyout",
        str(directory / "key.pem"),
        "-out",
        str(certificate),
    ]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    return certificate


# --- ssh -----------------------------------------------------------------------------------------


@dataclass
class Sshd:
    directory: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    host_keys: list[str] = field(default_factory=list)

    def start(self, key_type: str = "ed25519") -> None:
        """Start with a host key of its own making; the same port again after a stop."""
        key = self.directory / f"host_{len(self.host_keys)}"
        make_key(key, key_type)
        self.host_keys.append(key.with_suffix(".pub").read_text())
        self.port = self.port or _free_port()
        config = self.directory / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {key}\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {self.directory}/authorized_keys\nStrictModes no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
            "AcceptEnv GIT_PROTOCOL\nMaxStartups 100\nLogLevel ERROR\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        sshd = shutil.which("sshd") or "/usr/sbin/sshd"
        self.process = subprocess.Popen(
            [sshd, "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL, start_new_session=True
        )
        _wait_for_port(self.port, self.process)

    def stop(self) -> None:
        if self.process:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(10)
            self.process = None

    def authorize(self, *public_keys: str) -> None:
        (self.directory / "authorized_keys").write_text("".join(public_keys))

    def url(self, repository: Repository) -> str:
        return f"ssh://root@127.0.0.1:{self.port}{repository.path}"

    def fingerprint(self) -> str:
        done = subprocess.run(
            ["ssh-keygen", "-lf", "-"],
            input=self.host_keys[-1].encode(),
            capture_output=True,
            check=True,
        )
        return done.stdout.split()[1].decode()


def make_key(path: Path, key_type: str, form: str = "RFC4716") -> str:
    """A key pair without passphrase; the private key's text."""
    size = {"rsa": ["-b", "2048"], "ecdsa": ["-b", "256"]}.get(key_type, [])
    command = ["ssh-keygen", "-q", "-t", key_type, *size, "-m", form, "-N", "", "-f", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path.read_text()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(500):
        assert process.poll() is None, "sshd ended"
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
    raise AssertionError("sshd does not listen")


# --- fixtures ------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def _https(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitHTTPS]:
    root = tmp_path_factory.mktemp("https")
    with serving(GitHTTPS(root, make_certificate(tmp_path_factory.mktemp("tls")))) as server:
        yield server


@pytest.fixture
def https(_https: GitHTTPS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GitHTTPS:
    """Serves the repositories below the test's `remote` directory; its certificate is trusted."""
    _https.forget()
    _https.root = tmp_path / "remote"
    monkeypatch.setenv("GIT_SSL_CAINFO", str(_https.certificate))
    return _https


@pytest.fixture(scope="session")
def _sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def _key(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    path = tmp_path_factory.mktemp("key") / "key"
    return make_key(path, "ed25519"), path.with_suffix(".pub").read_text()


@pytest.fixture
def key(_key: tuple[str, str]) -> str:
    """A private key that `sshd` lets in."""
    return _key[0]


@pytest.fixture
def sshd(_sshd: Sshd, _key: tuple[str, str]) -> Sshd:
    _sshd.authorize(_key[1])
    return _sshd


@pytest.fixture
def own_sshd(tmp_path: Path, _key: tuple[str, str]) -> Iterator[Sshd]:
    """One whose host key the test may change."""
    (tmp_path / "sshd").mkdir()
    server = Sshd(tmp_path / "sshd")
    server.authorize(_key[1])
    server.start()
    yield server
    server.stop()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "remote" / "app.git")


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that accepts and stays silent."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield int(listener.getsockname()[1])
