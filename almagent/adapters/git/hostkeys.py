"""Which host keys are believed: those that the operator pinned, else the first one seen, for ever."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from almagent.journal import logger
from almagent.ports import Refused

log = logger()

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


def known_host_name(url: str) -> str:
    """The host as a known-hosts file names it: `host`, or `[host]:port` for another port than 22."""
    if "://" in url:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 22
    else:
        host, port = re.sub(r"^[^@]*@(\[[^]]*\]|[^:]*):.*$", r"\1", url).strip("[]").lower(), 22
    return host if port == 22 else f"[{host}]:{port}"


class HostKeys:
    """`remembered` is the agent's own file; `pinned`, if given, is used in its place and never written."""

    def __init__(self, pinned: Path | None, remembered: Path) -> None:
        self._pinned = pinned
        self._remembered = remembered
        self._awaited = ""  # the host that is about to be seen for the first time

    def prepare(self, host: str, link: Path) -> str:
        """Make `link` point to the file to use; the value for StrictHostKeyChecking.

        `accept-new` goes only to hosts without any entry: ssh would accept a key of another type as new.
        Raises Refused when the file cannot be used.
        """
        file = self._pinned or self._remembered
        try:
            if self._pinned is None:
                self._check_writable()
            known = file.read_text(encoding="utf-8", errors="replace")
        except OSError as exc:
            raise Refused(f"cannot use {file} for host keys: {exc.strerror}") from exc
        link.symlink_to(file.resolve())
        if self._pinned or _lines_of(known, host):
            return "yes"
        self._awaited = host
        return "accept-new"

    def _check_writable(self) -> None:
        """ssh connects all the same when it cannot remember the key, and would believe another one next time."""
        fd = os.open(self._remembered, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(fd, 0o600)
        finally:
            os.close(fd)

    def tell_new(self) -> None:
        """Log the fingerprint of a host that has just been believed."""
        host, self._awaited = self._awaited, ""
        if not host:
            return
        with suppress(OSError, ValueError):
            for line in _lines_of(self._remembered.read_text(encoding="utf-8"), host):
                log.info("source.host_key_accepted", host=host, fingerprint=_fingerprint(line))

    def failure(self, url: str, errors: Sequence[str]) -> Refused | None:
        """What a failed connection said about the host's key, if it was about that."""
        text = "\n".join(errors)
        if "Host key verification failed" not in text:
            return None
        host = known_host_name(url)
        file = self._pinned or self._remembered
        found = _FINGERPRINT.search(text)
        now = f" (now {found[0]})" if found else ""
        if self._pinned and "HAS CHANGED" not in text:
            return Refused(f"cannot fetch {url}: the host key of {host} is not in {file}")
        return Refused(
            f"cannot fetch {url}: the host key of {host} has changed{now}; "
            f"if that is right, correct its entry in {file}"
        )


def _lines_of(known: str, host: str) -> list[str]:
    lines = (line.split() for line in known.splitlines() if not line.startswith("#"))
    return [" ".join(line) for line in lines if line and host in line[0].split(",")]


def _fingerprint(line: str) -> str:
    key = base64.b64decode(line.split()[2])
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
