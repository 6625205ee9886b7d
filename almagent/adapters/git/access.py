"""How git is let in: credentials and keys as files that live as long as one fetch.

They lie in a directory of their own below the runtime directory (tmpfs), 0700. git and ssh run in that
directory and know the files by bare names, so no path has to be quoted for a shell or for ssh, whose
options split on spaces and expand `%`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from almagent.adapters.git.hostkeys import HostKeys, known_host_name
from almagent.adapters.git.runner import Git, run
from almagent.core.frozen import frozen
from almagent.core.model import GitSource, Secret
from almagent.ports import Refused

CONNECT_TIMEOUT = (
    30  # seconds for TCP and key exchange; a busy git server takes seconds, not minutes
)
STALL_TIMEOUT = (
    60  # seconds without a byte; servers that prepare a large pack send signs of life sooner
)

_SSH = (
    *("ssh", "-F", "/dev/null", "-oBatchMode=yes", "-oLogLevel=ERROR"),
    *("-oIdentityAgent=none", "-oIdentitiesOnly=yes", "-oPreferredAuthentications=publickey"),
    *(
        "-oGlobalKnownHostsFile=/dev/null",
        "-oUserKnownHostsFile=known_hosts",
        "-oHashKnownHosts=no",
    ),
    *("-oUpdateHostKeys=no", "-oCheckHostIP=no", "-oClearAllForwardings=yes"),
    *(f"-oConnectTimeout={CONNECT_TIMEOUT}", "-oServerAliveInterval=15", "-oServerAliveCountMax=3"),
)


@frozen
class Access:
    git: Git
    secrets: tuple[str, ...]  # what must not appear in any text


class Doorkeeper:
    """Makes the files that let git in, and takes them away again. One per runtime directory."""

    def __init__(self, runtime_dir: Path, host_keys: HostKeys) -> None:
        self._directory = runtime_dir / "git"
        self._host_keys = host_keys
        self._readable: set[bytes] = set()  # digests of keys that ssh-keygen has accepted
        self.sweep()

    def sweep(self) -> None:
        """Remove what a killed agent left behind."""
        shutil.rmtree(self._directory, ignore_errors=True)

    @asynccontextmanager
    async def let_in(self, git: Git, source: GitSource) -> AsyncIterator[Access]:
        """Raises Refused for a private key or known-hosts file that cannot be used."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(dir=self._directory))  # 0700
        try:
            git = replace(git, directory=place)
            if source.url.startswith("https://"):
                git = _with_password(git, source)
            else:
                git = await self._with_key(git, source)
            yield Access(git, _secrets(source))
        finally:
            shutil.rmtree(place)
            self._host_keys.tell_new()

    async def _with_key(self, git: Git, source: GitSource) -> Git:
        identity = "/dev/null"
        if source.private_key:
            identity = "key"
            _write(git.directory / identity, source.private_key.reveal())
            await self._check_key(git, source, source.private_key)
        strict = self._host_keys.prepare(known_host_name(source.url), git.directory / "known_hosts")
        command = [*_SSH, f"-oIdentityFile={identity}", f"-oStrictHostKeyChecking={strict}"]
        environment = {"GIT_SSH_COMMAND": " ".join(command), "GIT_SSH_VARIANT": "ssh"}
        return replace(git, environment=environment)

    async def _check_key(self, git: Git, source: GitSource, key: Secret) -> None:
        """ssh itself would only say `Permission denied` about a key that it cannot read."""
        digest = hashlib.sha256(key.reveal().encode()).digest()
        if digest in self._readable:
            return
        checked = await run(git, ["ssh-keygen", "-y", "-P", "", "-f", "key"])
        if checked.returncode != 0:
            raise Refused(f"cannot fetch {source.url}: {_key_trouble(' '.join(checked.errors))}")
        self._readable = {digest}


def _key_trouble(said: str) -> str:
    if "incorrect passphrase" in said:
        return "the private key is encrypted; a key without passphrase is needed"
    if "not found" in said:
        return "ssh-keygen is not installed"
    return "OpenSSH on this host cannot read the private key; convert it to OpenSSH format"


def _with_password(git: Git, source: GitSource) -> Git:
    """A credential helper for this one server: unlike ASKPASS, it gives nothing to a server that git is redirected to."""
    stall = ("http.lowSpeedLimit=1", f"http.lowSpeedTime={STALL_TIMEOUT}")
    if source.username is None and source.password is None:
        return replace(git, config=stall)
    username = source.username.reveal() if source.username else ""
    password = source.password.reveal() if source.password else ""
    _write(git.directory / "credential", f"username={username}\npassword={password}\n")
    server = "https://" + urlsplit(source.url).netloc
    helper = f"credential.{server}.helper=!cat credential; :"
    return replace(git, config=(*stall, helper))


def _secrets(source: GitSource) -> tuple[str, ...]:
    """A user name without a password is a token."""
    secrets = [source.password] if source.password else [source.username]
    return tuple(secret.reveal() for secret in secrets if secret)


def _write(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
