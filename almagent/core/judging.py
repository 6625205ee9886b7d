"""Whether a candidate may take the traffic."""

from __future__ import annotations

from almagent.core.model import Container, Health, State

SETTLED_AFTER = (
    5.0  # seconds; a container that shows nothing else is ready when it has been up this long
)


def is_ready(candidate: Container) -> bool:
    """The first of these that the container shows decides: its HEALTHCHECK, its status file, its ports,
    time."""
    if candidate.state is not State.RUNNING:
        return False
    if candidate.health is not None:
        return candidate.health is Health.HEALTHY
    if candidate.status_word is not None:
        return candidate.status_word == "complete"
    if candidate.ports:
        return candidate.listening is True
    return candidate.up_for >= SETTLED_AFTER


def waiting_for(candidate: Container) -> str:
    """What a candidate that is not ready lacks, for people."""
    if candidate.health is not None:
        return f"its health check says {candidate.health}"
    if candidate.status_word is not None:
        return f"its status file says {candidate.status_word}"
    if candidate.ports:
        ports = ", ".join(str(p) for p in candidate.ports)
        return f"not every port accepts connections ({ports})"
    return "it has not been up long enough"
