"""Desired x observed -> what to do now. Pure: the clock and the policy are arguments.

The order of thought, on every tick, from whatever the world looks like:

1. the active container serves: started if it ended, routed, restarted by Docker while the agent is away;
2. whatever is neither active nor wanted leaves: connections finish, stop signal, kill, remove;
3. if the active container is not what is desired, a candidate is prepared, created, started, judged;
   ready: all traffic is switched to it in one step; failed: it is removed and nothing else has changed;
4. for `bake_time` after a switch the previous container is kept; a release that dies in it is switched back.

Every wait is a time in `Plan.wake_at`, never a sleep, so nothing here keeps anything else waiting.
"""

from __future__ import annotations

from dataclasses import dataclass

from almagent.core import actions as do
from almagent.core.cast import (
    UP,
    Cast,
    Policy,
    Strategy,
    cast,
    failure_of,
    is_right,
    lost_first,
    replaces_lost,
)
from almagent.core.ending import drain_until, end, is_ending, leave
from almagent.core.judging import SETTLED_AFTER, failed_bake, is_ready, waiting_for
from almagent.core.memory import Memory
from almagent.core.model import (
    Container,
    Desired,
    Health,
    Keep,
    Leave,
    Observed,
    Prepared,
    PrepareFailed,
    Preparing,
    Release,
    Run,
    Spec,
    State,
)
from almagent.core.scene import LOOK_AGAIN, Plan, Scene

__all__ = [
    "LOOK_AGAIN",
    "SETTLED_AFTER",
    "Cast",
    "Plan",
    "Policy",
    "Strategy",
    "cast",
    "failure_of",
    "is_ready",
    "is_right",
    "lost_first",
    "plan",
    "replaces_lost",
    "waiting_for",
]


def plan(desired: Desired, seen: Observed, memory: Memory, policy: Policy, now: float) -> Plan:
    tick = _Tick(desired, seen, memory, policy, now, cast(desired, seen, memory, policy))
    if tick.adopt():
        return tick.plan
    match desired:
        case Leave():
            leave(tick, desired)
        case Keep():
            tick.keep()
        case Run(spec=spec):
            tick.run(spec)
    return tick.plan


@dataclass(slots=True)
class _Tick(Scene):
    def run(self, spec: Spec) -> None:
        if self.revert():
            return
        self.keep_serving()
        self.sweep()
        active = self.cast.active
        if active is not None and is_right(active, spec, self.policy):
            self.settle(active)
        elif self.cast.candidate is not None:
            self.bring_up(self.cast.candidate)
        elif not self._is_backing_off(spec):
            self.make_candidate(spec)

    def keep(self) -> None:
        """Nothing is known to be wanted: what serves goes on, what has begun to leave leaves."""
        if self.revert():
            return
        self.abandon()
        self.keep_serving()
        self.sweep(only_begun=True)

    # --- a release ---

    def make_candidate(self, spec: Spec) -> None:
        if self.memory.release is not None and self._replaces_lost(spec.revision):
            self._create(spec, self.memory.release)
            return
        match self.seen.preparation:
            case Prepared(release=release) if release.revision == spec.revision:
                self._create(spec, release)
            case PrepareFailed(revision=spec.revision, message=message, wait=wait):
                self.plan.then(do.Reject(spec.revision, message, wait))
            case Preparing(revision=spec.revision):
                pass  # its end wakes us
            case _:
                self.plan.then(do.Prepare(spec))

    def _create(self, spec: Spec, release: Release) -> None:
        for port in release.ports:
            if port in self.seen.busy_ports:
                owner = self.seen.busy_ports[port]
                self.plan.then(do.Reject(spec.revision, f"port {port} is taken by {owner}"))
                return
        self.plan.then(do.Create(spec, release, publish=not self.switching))

    def bring_up(self, candidate: Container) -> None:
        match candidate.state:
            case State.CREATED:
                if self.switching or self._make_way():
                    self.plan.then(do.Start(candidate, active=False))
            case State.RUNNING | State.PAUSED:
                self._judge(candidate)
            case State.REMOVING:
                self.look_again()
            case State.EXITED | State.DEAD | State.RESTARTING:
                self.plan.then(do.Discard(candidate, "it ended before it was ready"))

    def _make_way(self) -> bool:
        """Recreate: the active container ends before the candidate starts, they want the same ports."""
        active = self.cast.active
        if active is None or active.state not in UP:
            return True
        end(self, active, drain=False)
        return False

    def _judge(self, candidate: Container) -> None:
        trial = self.memory.trial
        if trial is None or trial.container_id != candidate.id:
            self.plan.then(do.Watch(candidate))
            return
        late = trial.since + self.policy.ready_timeout
        if is_ready(candidate) or self._replaces_lost(candidate.revision):
            self.plan.then(do.Switch(candidate, self.switching, drain_until(self, self.now)))
        elif self.now >= late:
            lacks = waiting_for(candidate)
            reason = f"not ready within {self.policy.ready_timeout:g} s: {lacks}"
            self.plan.then(do.Discard(candidate, reason))
        else:
            self.plan.wake(min(late, self.now + LOOK_AGAIN))

    def settle(self, active: Container) -> None:
        self.abandon()
        release, swept = self.memory.release, self.memory.swept == active.id
        baking = self.cast.previous is not None
        if active.state is State.RUNNING and not baking and not swept and release is not None:
            # After an adoption the release is unknown, and so is what is needless.
            images = tuple(c.image_id for c in self.seen.containers)
            paths = (release.code_path,) if release.code_path else ()
            self.plan.then(do.Collect(active.id, images, paths))

    # --- the active container ---

    def adopt(self) -> bool:
        """Memory was lost: whoever has the traffic is the active one."""
        if self.memory.active or not self.seen.containers:
            return False
        routed = {target.address for target in (self.seen.routes or {}).values()}
        up = [c for c in self.seen.containers if c.state in UP]
        serving = [c for c in up if c.address in routed] or [c for c in up if c.restarts]
        if serving:
            self.plan.then(do.Adopt(serving[-1]))
        return bool(serving)

    def keep_serving(self) -> None:
        active, candidate = self.cast.active, self.cast.candidate
        if active is None:
            return
        if candidate is not None and not self.switching:
            return  # recreate: it makes way and stands aside until the candidate is judged
        match active.state:
            case State.RUNNING:
                self._serve(active)
            case State.CREATED | State.EXITED | State.PAUSED:
                self._start(active)
            case State.DEAD:
                self.plan.then(do.Remove(active))
            case State.RESTARTING | State.REMOVING:
                self.look_again()

    def _serve(self, active: Container) -> None:
        if active.health is Health.UNHEALTHY or is_ending(self, active):
            self._restart(active)
        elif not active.restarts and not self._baking:
            self.plan.then(do.KeepRestarting(active))
        self._route(active)

    def _route(self, active: Container) -> None:
        """Recreate: Docker publishes the ports, and routes that the other strategy left would hide them."""
        wanted = active.targets if self.switching or not active.published else {}
        if self.seen.routes is not None and self.seen.routes != wanted:
            self.plan.then(do.Route(wanted))

    def _start(self, active: Container) -> None:
        starts = self.memory.starts
        if starts is not None and starts.in_vain(active) and self.now < starts.next_at:
            self.plan.wake(starts.next_at)
        elif not any(self._blocks(c) for c in self.cast.others):
            self.plan.then(do.Start(active, active=True))

    def _restart(self, active: Container) -> None:
        """An unhealthy container is stopped; it is started again once it has ended."""
        starts = self.memory.starts
        if starts is not None and self.now < starts.next_at and not is_ending(self, active):
            self.plan.wake(starts.next_at)
        else:
            end(self, active, drain=False)

    def revert(self) -> bool:
        """A release that fails while it bakes is switched back."""
        active, previous = self.cast.active, self.cast.previous
        if active is None or previous is None:
            return False
        how = failed_bake(active, self.memory, self.policy.bake_time, self.now)
        if how:
            reason = f"it {how} within {self.policy.bake_time:g} s after the switch"
            self.plan.then(do.Revert(active, previous, reason, drain_until(self, self.now)))
        elif self._baking:
            self.plan.wake(self._baked_at)
        return bool(how)

    # --- everything else ---

    def sweep(self, *, only_begun: bool = False) -> None:
        """Whatever is neither active nor candidate leaves; the previous one waits while baking."""
        trial = self.memory.trial
        for c in self.cast.others:
            if self._blocks(c):
                self.plan.then(do.Kill(c))
            elif only_begun and c.id not in self.memory.stops:
                continue
            elif c.state is State.REMOVING:
                self.look_again()
            elif c.state in UP and not (trial is not None and trial.container_id == c.id):
                end(self, c, drain=self.switching)
            elif c is self.cast.previous and self.now < self._baked_at:
                self.plan.wake(self._baked_at)
            else:  # it has ended, or is the candidate of an older document: it never had traffic
                self.plan.then(do.Remove(c))

    def _blocks(self, c: Container) -> bool:
        """Recreate: it holds the ports that the active container, which has ended, wants back."""
        active = self.cast.active
        wants = active is not None and active.published and active.state not in UP
        return wants and c.published and c.state in UP

    # --- small questions ---

    @property
    def _baking(self) -> bool:
        """While it is on probation Docker does not restart it: its death is to be seen as it was."""
        return self.cast.previous is not None and self.now < self._baked_at

    @property
    def _baked_at(self) -> float:
        switched = self.memory.switched_at
        return self.now if switched is None else switched + self.policy.bake_time

    def _replaces_lost(self, revision: str) -> bool:
        return replaces_lost(self.cast, self.memory, revision)

    def _is_backing_off(self, spec: Spec) -> bool:
        failure = failure_of(spec, self.memory)
        if failure is None:
            return False
        if failure.retry_at is not None:
            if self.now >= failure.retry_at:
                return False
            self.plan.wake(failure.retry_at)
        return True
