"""What the control plane is to be told, derived from the same facts as the plan.

Level-triggered: these are the statuses that are true now; the outbox leaves out those it was given before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from almagent.core.memory import Memory
from almagent.core.model import (
    AgentStatus,
    AgentWord,
    Container,
    ContainerStatus,
    ContainerWord,
    Desired,
    Leave,
    Observed,
    Run,
    Spec,
    State,
    Status,
)
from almagent.core.planner import Cast, Policy, cast, failure_of, is_right, replaces_lost

KEEPS_ENDING = 3  # starts in a row after which a container that dies young is worth an error


def statuses(
    desired: Desired, seen: Observed, memory: Memory, policy: Policy, unfinished: Sequence[str]
) -> tuple[Status, ...]:
    """`unfinished`: ids of containers that were reported and not yet as terminated."""
    parts = cast(desired, seen, memory, policy)
    told = [
        *_ended(desired, seen, memory, unfinished),
        *_candidate(parts, memory),
        *_active(desired, parts, memory),
    ]
    phase = _phase(desired, parts, memory, policy)
    return (*told, phase) if phase else tuple(told)


def _ended(
    desired: Desired, seen: Observed, memory: Memory, unfinished: Sequence[str]
) -> Iterator[Status]:
    present = {c.id: c for c in seen.containers}
    for container_id in unfinished:
        c = present.get(container_id)
        comes_back = container_id == memory.active and not isinstance(desired, Leave)
        if c is None and comes_back:
            yield ContainerStatus(container_id, ContainerWord.RESTARTING)
        elif c is None or (not comes_back and _stopped_by_us(c, memory)):
            yield ContainerStatus(container_id, ContainerWord.TERMINATED)


def _stopped_by_us(c: Container, memory: Memory) -> bool:
    return c.id in memory.stops and c.state is State.EXITED


def _candidate(parts: Cast, memory: Memory) -> Iterator[Status]:
    candidate = parts.candidate
    if candidate is None or replaces_lost(parts, memory, candidate.revision):
        return
    word = ContainerWord.UPDATING if memory.active else ContainerWord.STARTING
    yield ContainerStatus(candidate.id, word)
    yield from _own_word(candidate)


def _active(desired: Desired, parts: Cast, memory: Memory) -> Iterator[Status]:
    active = parts.active
    if active is None:
        return
    if active.state is State.RUNNING:
        if active.incarnation != memory.incarnation:
            yield ContainerStatus(active.id, ContainerWord.RESTARTING)
        yield ContainerStatus(active.id, ContainerWord.RUNNING)
        yield from _own_word(active)
    elif active.state is not State.REMOVING and not _stands_aside(desired, parts, memory):
        yield ContainerStatus(active.id, ContainerWord.RESTARTING)


def _stands_aside(desired: Desired, parts: Cast, memory: Memory) -> bool:
    """Stopped by us, for good or for as long as a candidate that wants the same ports is judged."""
    stopped = parts.active is not None and parts.active.id in memory.stops
    return stopped and (isinstance(desired, Leave) or parts.candidate is not None)


def _own_word(c: Container) -> Iterator[Status]:
    if c.status_word:
        yield ContainerStatus(c.id, c.status_word, own=False)


def _phase(desired: Desired, parts: Cast, memory: Memory, policy: Policy) -> AgentStatus | None:
    if not isinstance(desired, Run):
        return None
    spec = desired.spec
    active = parts.active
    if is_right(active, spec, policy):
        return _health_of(active, memory) if active else None
    failure = failure_of(spec, memory)
    if failure is not None:
        message = f"{_what(spec)}: {failure.message}; {_still_serving(active)}"
        return AgentStatus(AgentWord.ERROR, message)
    if replaces_lost(parts, memory, spec.revision):
        return None
    return AgentStatus(AgentWord.INSTALLING, _what(spec))


def _health_of(active: Container, memory: Memory) -> AgentStatus | None:
    """None: not known just now; what was said before still holds."""
    starts = memory.starts
    ending = starts is not None and starts.count >= KEEPS_ENDING and starts.in_vain(active)
    if active.state is State.RUNNING:
        return None if ending else AgentStatus(AgentWord.UPTODATE)
    if ending and active.state is not State.PAUSED:
        how = "out of memory" if active.oom_killed else f"exit code {active.exit_code}"
        return AgentStatus(AgentWord.ERROR, f"the container keeps ending ({how})")
    return None


def _what(spec: Spec) -> str:
    code = f" with code {spec.source.reference or 'HEAD'}" if spec.source else ""
    return f"release {spec.revision[:8]} (image {spec.image}{code})"


def _still_serving(active: Container | None) -> str:
    if active is None:
        return "nothing serves"
    return f"release {active.revision[:8]} keeps serving"
