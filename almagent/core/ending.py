"""The way out of one container: its open connections finish, stop signal, kill. And of all of them."""

from __future__ import annotations

from almagent.core import actions as do
from almagent.core.cast import UP
from almagent.core.memory import Stop
from almagent.core.model import Container, Leave, State
from almagent.core.scene import LOOK_AGAIN, Scene

DRAIN_AT_LEAST = 0.5  # seconds; a connection accepted before the switch may not show yet


def end(scene: Scene, c: Container, *, drain: bool) -> None:
    """One step further out for a container that runs."""
    stop = scene.memory.stops.get(c.id)
    if stop is not None and stop.term_at is not None and is_ending(scene, c):
        _kill_in_time(scene, c, stop.term_at)
    elif not drain or (stop is not None and _is_drained(scene, c, stop)):
        scene.plan.then(do.Terminate(c))
    elif stop is None:
        scene.plan.then(do.Retire(c, drain_until(scene, scene.now)))


def is_ending(scene: Scene, c: Container) -> bool:
    """It got its stop signal in this life of it. One that was only retired, or was started again by an
    agent that died before it could note that, serves on."""
    stop = scene.memory.stops.get(c.id)
    started_at = scene.now - c.up_for
    return stop is not None and stop.term_at is not None and started_at <= stop.term_at


def drain_until(scene: Scene, since: float) -> float:
    """Open connections get drain_timeout, or what a deadline leaves beside the grace to stop."""
    desired, policy = scene.desired, scene.policy
    if not isinstance(desired, Leave) or desired.done_by is None:
        return since + policy.drain_timeout
    left = max(0.0, desired.done_by - since)
    return since + left - min(policy.stop_timeout, left / 2)


def _is_drained(scene: Scene, c: Container, stop: Stop) -> bool:
    until = min(stop.drain_until, drain_until(scene, stop.since))
    if scene.now >= until:
        return True
    at_least = stop.since + DRAIN_AT_LEAST
    idle = c.connections == 0 or not c.ports
    if idle and scene.now >= at_least:
        return True
    scene.plan.wake(min(until, max(at_least, scene.now + LOOK_AGAIN)))
    return False


def _kill_in_time(scene: Scene, c: Container, term_at: float) -> None:
    """The stop signal gets stop_timeout, or what is left when the instance goes away sooner."""
    kill_at = term_at + scene.policy.stop_timeout
    if isinstance(scene.desired, Leave) and scene.desired.done_by is not None:
        kill_at = max(term_at, min(kill_at, scene.desired.done_by))
    if scene.now >= kill_at:
        scene.plan.then(do.Kill(c))
    else:
        scene.plan.wake(kill_at)


# --- leaving for good ---


def leave(scene: Scene, desired: Leave) -> None:
    """No new release; the hook; no new connections; then each container ends."""
    scene.abandon()
    if not scene.seen.containers:
        scene.plan.done = not scene.plan.actions
        return
    active = scene.cast.active
    if active is not None and active.state is State.RUNNING and _is_hook_due(scene, desired):
        scene.plan.then(do.RunHook(active, desired.hook or "", _time_left(scene, desired) / 2))
        return
    if scene.seen.routes:
        scene.plan.then(do.Route({}))
    for c in scene.seen.containers:
        _leave_one(scene, c)


def _is_hook_due(scene: Scene, desired: Leave) -> bool:
    return desired.hook is not None and not scene.memory.hook_done


def _leave_one(scene: Scene, c: Container) -> None:
    if c.state in UP:
        end(scene, c, drain=scene.switching)
    elif c.state is State.REMOVING:
        scene.look_again()
    else:
        scene.plan.then(do.Remove(c))


def _time_left(scene: Scene, desired: Leave) -> float:
    """Seconds for everything that is still to be done."""
    if desired.done_by is None:
        return scene.policy.drain_timeout + scene.policy.stop_timeout
    return max(0.0, desired.done_by - scene.now)
