"""Whether a candidate may take the traffic, and whether a release keeps it."""

from __future__ import annotations

from almagent.core.memory import Memory
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


def failed_bake(active: Container, memory: Memory, bake_time: float, now: float) -> str:
    """What the active container did within `bake_time` seconds after the switch to it; "" for nothing bad."""
    if memory.switched_at is None:
        return ""
    ended = active.state in (State.EXITED, State.DEAD)
    if now >= memory.switched_at + bake_time:
        # While this agent was away: or else Docker would have been told by now to restart it.
        unseen = ended and not active.restarts
        return "ended" if unseen and active.up_for - memory.up_at_switch < bake_time else ""
    if active.health is Health.UNHEALTHY:
        return "turned unhealthy"
    again = active.state is State.RESTARTING or active.incarnation != memory.incarnation
    return "ended" if ended or again else ""
