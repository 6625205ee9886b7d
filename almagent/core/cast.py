"""Who plays which part, told anew on every look from what is seen and remembered."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from almagent.core.frozen import frozen
from almagent.core.memory import Failure, Memory
from almagent.core.model import Container, Desired, Observed, Run, Spec, State

UP = (State.RUNNING, State.PAUSED, State.RESTARTING)


class Strategy(StrEnum):
    SWITCH = "switch"
    RECREATE = "recreate"


@frozen
class Policy:
    """Times in seconds, from the settings."""

    strategy: Strategy
    ready_timeout: float = 180.0
    drain_timeout: float = 30.0
    stop_timeout: float = 30.0
    bake_time: float = 30.0


@frozen
class Cast:
    active: Container | None
    previous: Container | None  # the one to switch back to
    candidate: Container | None
    others: tuple[Container, ...]  # everything of ours but active and candidate


def cast(desired: Desired, seen: Observed, memory: Memory, policy: Policy) -> Cast:
    """The active container is the one memory names; a candidate has the desired revision and never had
    traffic. A container that has begun to leave never becomes a candidate, nor one of a release that was
    switched back."""
    by_id = {c.id: c for c in seen.containers}
    active = by_id.get(memory.active)
    previous = by_id.get(memory.previous) if active else None
    candidate = None
    spec = desired.spec if isinstance(desired, Run) else None
    if spec and not is_right(active, spec, policy) and not _is_held(spec, memory):
        fresh = (
            c
            for c in reversed(seen.containers)
            if c.revision == spec.revision
            and c.id not in (memory.active, memory.previous)
            and c.id not in memory.stops
            and c.published == (policy.strategy is Strategy.RECREATE)
        )
        candidate = next(fresh, None)
    others = tuple(c for c in seen.containers if c not in (active, candidate))
    return Cast(active, previous, candidate, others)


def is_right(active: Container | None, spec: Spec, policy: Policy) -> bool:
    """The active container is what is desired, and reachable by the strategy in force."""
    reachable = active is not None and (active.published or policy.strategy is Strategy.SWITCH)
    return active is not None and active.revision == spec.revision and reachable


def replaces_lost(parts: Cast, memory: Memory, revision: str) -> bool:
    """Somebody removed the active container. The same release again needs no judging: it was ready
    before, and nothing else serves meanwhile."""
    release = memory.release
    return parts.active is None and release is not None and release.revision == revision


def lost_first(
    desired: Desired, seen: Observed, memory: Memory, specs: Mapping[str, Spec]
) -> Desired:
    """What to plan for now. Somebody removed the active container while another release is not up yet,
    and perhaps never will be: what served comes back first. `specs`: by revision, of what served."""
    release = memory.release
    if not isinstance(desired, Run) or release is None:
        return desired
    spec = specs.get(release.revision)
    present = memory.active in {c.id for c in seen.containers}
    return desired if present or spec is None else Run(spec)


def failure_of(spec: Spec, memory: Memory) -> Failure | None:
    """The failure that holds this spec back, if any."""
    failure = memory.failure
    return failure if failure is not None and failure.revision == spec.revision else None


def _is_held(spec: Spec, memory: Memory) -> bool:
    failure = failure_of(spec, memory)
    return failure is not None and failure.retry_at is None
