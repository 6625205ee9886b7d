"""A git repository, and the smart HTTP over TLS by which it is fetched.

`git http-backend` does the talking (man git-http-backend); here is the web server around it.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from asyncio.subprocess import PIPE
from collections.abc import Mapping
from pathlib import Path

from aiohttp import web

from almagent.demo.errors import DemoError

NAME = "app.git"
BRANCH = "refs/heads/main"
AUTHOR = "almagent demo <demo@localhost>"
TIMEOUT = 20.0  # seconds for one run of git or openssl; they take far less than one
ENVIRONMENT = {
    "PATH": os.environ.get("PATH", os.defpath),
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
}


class Repository:
    """A bare repository in `root`/app.git; commits are made in it without a working tree."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._path = root / NAME
        self._commits = 0

    async def make(self) -> None:
        """Raises DemoError."""
        await _run("git", "init", "--quiet", "--bare", "--initial-branch=main", str(self._path))

    async def commit(self, files: Mapping[str, str]) -> str:
        """A commit with exactly these files on the branch `main`; its full name. Raises DemoError."""
        self._commits += 1
        stream = [
            f"commit {BRANCH}\ncommitter {AUTHOR} {self._commits} +0000\n".encode(),
            _data(f"release {self._commits}\n"),
            f"from {BRANCH}^0\n".encode() if self._commits > 1 else b"",
            b"deleteall\n",
            *(f"M 644 inline {name}\n".encode() + _data(text) for name, text in files.items()),
        ]
        await self._git("fast-import", "--quiet", data=b"".join(stream))
        return (await self._git("rev-parse", BRANCH)).decode().strip()

    async def _git(self, *args: str, data: bytes = b"") -> bytes:
        return await _run("git", f"--git-dir={self._path}", *args, data=data)


def application(repository: Repository) -> web.Application:
    """Serves the repository for fetching as `NAME`."""

    async def backend(request: web.Request) -> web.Response:
        body = await request.read()  # already unpacked, where git had packed it
        variables = {
            "GIT_PROJECT_ROOT": str(repository.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": request.method,
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query_string,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
        }
        return _response(await _run("git", "http-backend", data=body, variables=variables))

    app = web.Application()
    app.router.add_route("*", f"/{NAME}/{{rest:.*}}", backend)
    return app


async def make_certificate(directory: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that only its own file vouches for. Raises DemoError."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=almagent demo", "-addext", "subjectAltName=IP:127.0.0.1"]
    await _run("openssl", "req", *kind, *names, "-keyout", str(key), "-out", str(certificate))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return certificate, context


def _data(text: str) -> bytes:
    """The `data` command of git's fast-import streams."""
    content = text.encode()
    return f"data {len(content)}\n".encode() + content + b"\n"


def _response(output: bytes) -> web.Response:
    """What a CGI program answers (RFC 3875 section 6) as the answer to the client."""
    head, _, body = output.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
    status = int(headers.pop("Status", "200").split()[0])
    return web.Response(status=status, headers=headers, body=body)


async def _run(
    *command: str, data: bytes = b"", variables: Mapping[str, str] | None = None
) -> bytes:
    what = " ".join(command[:2])
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env={**ENVIRONMENT, **(variables or {})}
        )
    except OSError as exc:
        raise DemoError(f"cannot run {what}: {exc.strerror}; install {command[0]}") from exc
    try:
        async with asyncio.timeout(TIMEOUT):
            output, errors = await process.communicate(data)
    except TimeoutError as exc:
        raise DemoError(f"cannot run {what}: no end within {TIMEOUT:g} s") from exc
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        words = errors.decode(errors="replace").strip().splitlines()
        raise DemoError(f"cannot run {what}: {words[-1] if words else 'it failed'}")
    return output
