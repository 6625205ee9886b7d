"""Logins for registries from the host's Docker configuration, as `docker pull` finds them.

`credHelpers`, then `credsStore`, then `auths` of `config.json` (github.com/docker/cli, `cli/config`).
A helper is a program `docker-credential-NAME` that is asked `get` with the registry on its input
(github.com/docker/docker-credential-helpers).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from almagent.core.imageref import DEFAULT_REGISTRY
from almagent.journal import logger
from almagent.ports import Refused, Unavailable

HUB_KEY = "https://index.docker.io/v1/"  # what Docker calls the hub in its configuration
TOKEN_USER = "<token>"  # noqa: S105  a helper's word for "the secret is an identity token"
HELPER_DEADLINE = 30.0  # seconds; cloud helpers ask a metadata service and an API
NOT_FOUND = "credentials not found"  # what helpers print when they have none
MAX_CONFIG = 1 << 20  # bytes

Login = Mapping[str, str]  # fields of the engine's AuthConfig; empty: anonymous

log = logger()


def config_file() -> Path:
    """$DOCKER_CONFIG/config.json, else ~/.docker/config.json."""
    folder = os.environ.get("DOCKER_CONFIG") or "~/.docker"
    return Path(folder).expanduser() / "config.json"


async def find(registry: str, path: Path, *, deadline: float = HELPER_DEADLINE) -> Login:
    """The host's login for a registry; empty without one. `deadline` in seconds, for a helper.

    Raises Unavailable (the helper failed or is silent), Refused (the helper is not installed).
    """
    config = _read(path)
    key = HUB_KEY if registry == DEFAULT_REGISTRY else registry
    helpers = _mapping(config.get("credHelpers"))
    helper = helpers.get(key) or helpers.get(registry) or config.get("credsStore")
    if isinstance(helper, str) and helper:
        login = await _ask_helper(helper, key, deadline)
        if login:
            return login
    return _from_auths(_mapping(config.get("auths")), registry, key)


def _read(path: Path) -> Mapping[str, Any]:
    """{} for a file that is not there or not sound: as with `docker pull`, public images still come."""
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(MAX_CONFIG))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as exc:
        log.warning("registry.config_unreadable", path=str(path), reason=type(exc).__name__)
        return {}
    return _mapping(content)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _from_auths(auths: Mapping[str, Any], registry: str, key: str) -> Login:
    """Old configurations have whole URLs as keys; the host in them counts."""
    for name, entry in auths.items():
        if name == key or _host(name) == registry:
            return _decode(_mapping(entry), key)
    return {}


def _host(key: str) -> str:
    host = key.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return DEFAULT_REGISTRY if host == "index.docker.io" else host


def _decode(entry: Mapping[str, Any], server: str) -> Login:
    fields = {"serveraddress": server}
    for token in ("identitytoken", "registrytoken"):
        if entry.get(token):
            return fields | {token: str(entry[token])}
    with suppress(ValueError):
        text = base64.b64decode(str(entry.get("auth", ""))).decode()
        username, colon, password = text.rstrip("\0").partition(":")
        if colon:
            return fields | {"username": username, "password": password}
    if entry.get("username"):
        secret = str(entry.get("password", ""))
        return fields | {"username": str(entry["username"]), "password": secret}
    return {}


async def _ask_helper(name: str, server: str, deadline: float) -> Login:
    program = f"docker-credential-{name}"
    what = f"cannot get the login for {server}: {program}"
    if Path(name).name != name:
        raise Refused(f"{what} is no program name")
    code, output = await _run(program, server, deadline, what)
    text = output.decode("utf-8", "replace").strip()
    if code != 0:
        if NOT_FOUND in text:
            return {}
        raise Unavailable(f"{what} ended with {code}")
    try:
        answer = json.loads(text)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise Unavailable(f"{what} gave an answer that is not valid") from None
    if username == TOKEN_USER:
        return {"serveraddress": server, "identitytoken": secret}
    return {"serveraddress": server, "username": username, "password": secret}


async def _run(program: str, text: str, deadline: float, what: str) -> tuple[int, bytes]:
    """Exit code and output. The helper has a process group of its own, which ends with this call."""
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            "get",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as exc:
        raise Refused(f"{what}: {exc.strerror}") from exc
    try:
        async with asyncio.timeout(deadline):
            output, _ = await process.communicate(text.encode())
    except TimeoutError as exc:
        raise Unavailable(f"{what} does not answer within {deadline:.0f} s") from exc
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    return process.returncode or 0, output
