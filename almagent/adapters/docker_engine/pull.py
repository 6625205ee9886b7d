"""What the engine says while it pulls: progress in bytes, and in the end the verdict.

The stream is the only truth about a pull. The engine answers 200 before it begins, and an image that
an earlier pull left under the same tag is there whatever happens now.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from almagent.adapters.docker_engine import texts
from almagent.ports import PortError, Refused, Unavailable

# A layer is here. The engine tells only the latest to who listens slowly, so any of them may be the first to come.
_HERE = {"Verifying Checksum", "Download complete", "Extracting", "Pull complete"}

RATE_LIMIT_WAIT = 60.0  # seconds, where neither the text nor the registry tells
_DIGEST = re.compile(r"Digest: (sha256:[0-9a-f]{64})")
_RETRY_AFTER = re.compile(r"retry-after: ([0-9.]+)(m?s|µs|m)?")
_UNITS = {"µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, None: 1.0}

# The engine's HTTP status is 500 for nearly all of these; only the text tells them apart.
_RATE_LIMITED = re.compile(r"toomanyrequests|\b429\b|rate limit", re.IGNORECASE)
_NO_SPACE = re.compile(r"no space left on device|disk quota exceeded")
_NO_LOGIN = re.compile(r"unauthorized|denied|no basic auth|authentication required|\b401\b")
_NO_IMAGE = re.compile(
    r"manifest unknown|not found|no matching manifest|name unknown|invalid reference"
)


class RateLimited(Unavailable):
    """The registry limits requests."""


def pull_lines(
    client: Any, repository: str, version: str, login: Mapping[str, str]
) -> Iterable[Any]:
    """The lines of a pull. A refusal before the first line becomes a line like any later one."""
    try:
        lines = client.pull(
            repository, tag=version, stream=True, decode=True, auth_config=dict(login)
        )
    except client.Answer as exc:
        return [{"error": str(exc.explanation or exc)}]
    return itertools.chain(lines)


class Transfer:
    """Adds up one pull."""

    def __init__(self, reference: str) -> None:
        self._reference = reference
        self._layers: dict[str, tuple[int, int]] = {}  # bytes that are here, bytes in all
        self._ended = False
        self.digest = ""

    def take(self, line: Mapping[str, Any]) -> None:
        """Raises the verdict as soon as a line tells a failure."""
        if "error" in line:
            raise verdict(self._reference, str(line["error"]))
        status, layer = str(line.get("status", "")), str(line.get("id", ""))
        detail = line.get("progressDetail") or {}
        if status == "Downloading" and "total" in detail:
            self._layers[layer] = (int(detail["current"]), int(detail["total"]))
        elif status in _HERE and layer in self._layers:
            total = self._layers[layer][1]
            self._layers[layer] = (total, total)
        elif match := _DIGEST.fullmatch(status):
            self.digest = match[1]
        elif status.startswith("Status: "):
            self._ended = True

    @property
    def done(self) -> int:
        return sum(done for done, _total in self._layers.values())

    @property
    def total(self) -> int:
        """Of the layers whose download has begun: it grows."""
        return sum(total for _done, total in self._layers.values())

    def end(self) -> None:
        """Raises Unavailable when the stream broke off before the engine's last word."""
        if not self._ended:
            text = f"cannot pull {self._reference}: the Docker engine went away in the middle"
            raise Unavailable(text)


def verdict(reference: str, text: str) -> PortError:
    """The failure that the engine's text tells."""
    reason = texts.one_line(text)
    start = f"cannot pull {reference}: "
    if _RATE_LIMITED.search(text):
        message = start + f"the registry limits requests ({reason})"
        return RateLimited(message, retry_after=_wait(text))
    if _NO_SPACE.search(text):
        return Refused(start + f"no space left on the disk of the Docker engine ({reason})")
    if _NO_LOGIN.search(text):
        return Refused(
            start + f"the registry refuses the login, or there is no such image ({reason})"
        )
    if _NO_IMAGE.search(text):
        return Refused(start + f"no such image ({reason})")
    return Unavailable(start + reason)


def _wait(text: str) -> float:
    match = _RETRY_AFTER.search(text)
    return float(match[1]) * _UNITS[match[2]] if match else RATE_LIMIT_WAIT
