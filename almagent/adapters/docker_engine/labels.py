"""Ownership: a container, network or image is ours by its labels, never by its name."""

import hashlib
import re
from collections.abc import Mapping

from almagent.core.frozen import frozen

STACK = "almagent.stack"
FLAG = "almagent.flag"
REVISION = "almagent.revision"
COMMIT = "almagent.commit"
IMAGE = "almagent.image"
DIGEST = "almagent.digest"
PORTS = "almagent.ports"  # "80,443"

MAX_FLAG = 40  # characters of the flag in names that are for people


@frozen
class Owner:
    """The stack and flag whose containers one agent looks after."""

    stack_id: str
    flag: str

    @property
    def labels(self) -> dict[str, str]:
        return {STACK: self.stack_id, FLAG: self.flag}

    @property
    def filters(self) -> dict[str, list[str]]:
        """For the engine's list calls; it compares label values exactly."""
        return {"label": [f"{name}={value}" for name, value in self.labels.items()]}

    def owns(self, labels: Mapping[str, str] | None) -> bool:
        return self.labels.items() <= (labels or {}).items()

    @property
    def word(self) -> str:
        """The flag with only the characters that Docker takes in a name."""
        return re.sub(r"[^a-zA-Z0-9_.-]", "-", self.flag)[:MAX_FLAG]

    @property
    def network(self) -> str:
        return f"almagent-{self.word}-{self._digest[:6]}"

    @property
    def bridge(self) -> str:
        """The network's interface on the host; at most 15 characters fit."""
        return f"alm{self._digest[:8]}"

    @property
    def _digest(self) -> str:
        return hashlib.sha256(f"{self.stack_id}/{self.flag}".encode()).hexdigest()


def read_ports(text: str) -> tuple[int, ...]:
    return tuple(int(port) for port in text.split(",") if port.isdecimal())


def write_ports(ports: tuple[int, ...]) -> str:
    return ",".join(str(port) for port in ports)
