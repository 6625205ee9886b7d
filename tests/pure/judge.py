"""What must never happen on a host, whatever goes wrong; told from the host alone where that is possible."""

from __future__ import annotations

import math

from almagent.core import actions as do
from almagent.core.memory import Trial
from almagent.core.model import (
    AgentStatus,
    AgentWord,
    ContainerStatus,
    Leave,
    Prepared,
    Run,
    State,
    Status,
)
from almagent.core.planner import Plan
from tests.pure.host import UP, Box, or_never
from tests.pure.world import Watcher, World

SLACK = 1.0  # seconds for steps that follow one another
PAUSE_MAX = 300.0  # seconds, contract section 4
STABLE = 10.0  # seconds; what ran this long did not die young


class Judge(Watcher):
    """What must never happen, told from the world alone where that is possible."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.words: dict[str, str] = {}  # last word by container
        self.restored: set[str] = set()  # containers that were switched back to
        self.phase: AgentStatus | None = None
        self.tries: list[float] = []  # preparations in a row of the desired revision
        self.starts: list[float] = []  # starts in a row of an active container that dies young
        self.starts_known = True
        self.banned = ""  # the revision that was switched back
        self.baking: tuple[Box, int, float] | None = None  # who, its incarnation, since when
        self.left_at = -math.inf
        self._served: set[str] = set()
        self._moment: object = None  # the last plan, and all that it was made from

    def disturbed(self) -> None:
        """The next preparation may come sooner than without this."""
        self.tries = []

    def rebooted(self) -> None:
        """Times that the agent remembered are void."""
        self.disturbed()
        self.starts, self.starts_known, self.baking = [], False, None

    def forgotten(self) -> None:
        """The agent's memory is gone."""
        self.rebooted()
        self.words, self.phase, self.banned = {}, None, ""

    def cut(self) -> None:
        self.rebooted()
        self._moment = None
        self.banned = ""

    def document_changed(self) -> None:
        self.disturbed()
        self.banned = ""

    # --- plans ---

    def planned(self, plan: Plan) -> None:
        assert len(plan.actions) == len({repr(a) for a in plan.actions}), "the same thing twice"
        moment = (self.world.now, self.world.seen, self.world.memory, plan.actions)
        assert not plan.actions or moment != self._moment, "the same again, without effect"
        self._moment = moment
        asleep = plan.wake_at is None or plan.wake_at > self.world.now
        assert plan.actions or asleep, "busy: nothing to do, and look again at once"
        given = {c.id for c in self.world.seen.containers}
        for action in plan.actions:
            if isinstance(action, do.Revert):
                assert action.to.id in given
            container = getattr(action, "container", None)
            assert container is None or container.id in given, "not ours"

    # --- actions ---

    def before(self, action: do.Action) -> None:
        world = self.world
        self._served = {box.id for box in world.boxes.values() if world.serves(box)}
        match action:
            case do.Prepare(spec=spec):
                self._may_try(spec.revision)
                self._may_prepare()
            case do.Create(spec=spec, release=release):
                self._may_try(spec.revision)
                restores = self._restores(release.revision) and release == world.memory.release
                assert restores or world.preparation == Prepared(release), "not prepared"
                assert not set(release.ports) & set(world.foreign), "the port is taken"
            case do.Start(container=c, active=False):
                assert c.state is State.CREATED
                assert c.revision == self._wanted or self._restores(c.revision)
            case do.Start(container=c, active=True):
                assert c.id == world.memory.active
                self._may_start(world.boxes[c.id])
            case do.Switch(container=c, routed=routed):
                self._may_switch(world.boxes[c.id], routed=routed)
            case do.Discard(container=c):
                assert c.id not in (world.memory.active, world.memory.previous)
            case do.Revert(container=c, to=to):
                assert c.id == world.memory.active
                assert to.id == world.memory.previous
                assert world.memory.switched_at is not None, "switched back without a bake"
                baked_at = world.memory.switched_at + world.policy.bake_time
                assert min(world.now, _ended_at(world.boxes[c.id])) < baked_at
            case do.Terminate(container=c):
                self._may_end(world.boxes[c.id])
                self._may_terminate(world.boxes[c.id])
                self._bad_bake_was_reverted()
            case do.Kill(container=c):
                self._may_end(world.boxes[c.id])
                self._may_kill(world.boxes[c.id])
            case do.Remove(container=c):
                self._may_end(world.boxes[c.id])
                self._may_remove(world.boxes[c.id])

    def after(self, action: do.Action) -> None:
        world = self.world
        match action:
            case do.Create():
                memory = world.memory
                known = {memory.active, memory.previous, *memory.stops}
                fresh = [box for box in world.boxes.values() if box.id not in known]
                assert len(fresh) == 1, "two candidates"
            case do.Switch(container=c):
                box = world.boxes[c.id]
                had = world.memory.active in world.boxes
                self.baking = (box, box.starts, world.now) if had else None
                self.banned = ""
                self._new_active()
            case do.Revert(container=c, to=to):
                self.banned, self.baking = c.revision, None
                self.restored.add(to.id)
                self._new_active()
            case do.Terminate(container=c) if c.id == world.memory.active:
                self.baking = None
        self._still_reachable(action)

    @property
    def _wanted(self) -> str:
        desired = self.world.desired
        return desired.spec.revision if isinstance(desired, Run) else ""

    @property
    def _leaving(self) -> bool:
        return isinstance(self.world.desired, Leave)

    def _restores(self, revision: str) -> bool:
        """The active container is gone, and this is what it was made from."""
        release = self.world.memory.release
        return self.world.active is None and release is not None and release.revision == revision

    def _may_try(self, revision: str) -> None:
        assert revision == self._wanted or self._restores(revision), "nobody wants that"
        assert not self.banned or revision != self.banned, "tried again after it was switched back"

    def _may_prepare(self) -> None:
        now = self.world.now
        if self.tries:
            pause = min(PAUSE_MAX, 10.0 * 2 ** (len(self.tries) - 1))
            assert now >= self.tries[-1] + pause, "tried again too soon"
        self.tries.append(now)

    def _may_start(self, box: Box) -> None:
        now = self.world.now
        if box.up_for(now) >= STABLE:
            self.starts, self.starts_known = [], True
        elif self.starts:
            pause = min(PAUSE_MAX, 2.0 ** (len(self.starts) - 1))
            assert now >= self.starts[-1] + pause - 1e-6, "started again too soon"
        self.starts.append(now)

    def _new_active(self) -> None:
        self.disturbed()
        self.starts, self.starts_known = [], True

    def _may_switch(self, box: Box, *, routed: bool) -> None:
        assert routed == self.world.switching
        assert not self._leaving
        if self._restores(box.revision):
            return
        assert box.revision == self._wanted, "switched to what nobody wants"
        assert box.works(self.world.now), "switched to what is not ready"

    def _may_end(self, box: Box) -> None:
        world = self.world
        if box.id not in self._served or self._leaving or box.term_at is not None:
            return
        if world.active is None and box.id in _tried(world.memory.trial):
            return  # it was dealt the address of one that was removed, and has its traffic by that only
        makes_way = any(
            b.state is State.CREATED and b.published and b.revision == self._wanted
            for b in world.boxes.values()
        )
        assert not world.switching, "ended what serves"
        assert box is not world.active or makes_way, "ended what serves, for nothing"

    def _may_terminate(self, box: Box) -> None:
        world = self.world
        if not world.switching or not box.connected(world.now) or box.sick:
            return
        until = box.had_traffic_at + world.policy.drain_timeout
        if isinstance(world.desired, Leave) and world.desired.done_by is not None:
            left = world.desired.done_by - min(self.left_at, box.had_traffic_at)
            grace = min(world.policy.stop_timeout, left / 2)
            until = min(until, world.desired.done_by - grace)
        assert world.now >= until - 1e-6, "open connections were cut"

    def _may_kill(self, box: Box) -> None:
        world = self.world
        wants_ports_back = not world.switching and box is not world.active
        if wants_ports_back and world.active is not None and world.active.state not in UP:
            return
        until = or_never(box.term_at) + world.policy.stop_timeout
        if isinstance(world.desired, Leave) and world.desired.done_by is not None:
            until = min(until, max(or_never(box.term_at), world.desired.done_by))
        assert world.now >= until - 1e-6, "killed without grace"

    def _may_remove(self, box: Box) -> None:
        """The way back is kept while the new release bakes."""
        world = self.world
        if self.baking is None or box is not world.previous or self._leaving:
            return
        baked_at = self.baking[2] + world.policy.bake_time
        assert world.active is None or world.now >= baked_at, "the way back is gone"

    def _still_reachable(self, action: do.Action) -> None:
        """What an action ends is judged before it; this is about where the traffic goes."""
        world = self.world
        if isinstance(action, do.Terminate | do.Kill | do.Remove) or self._leaving:
            return
        if world.memory.active in self._served and not isinstance(action, do.Switch):
            assert world.reachable, "made unreachable"

    # --- statuses ---

    def told(self, status: Status) -> None:
        if isinstance(status, AgentStatus):
            self.phase = status
        elif status.own:
            self._in_order(status)

    def _in_order(self, status: ContainerStatus) -> None:
        container, word = status.container_id, str(status.word)
        before = self.words.get(container, "")
        self.words[container] = word
        allowed = {
            "": {"starting", "updating", "running", "restarting"},
            "starting": {"updating", "running", "restarting", "terminated"},
            "updating": {"running", "restarting", "terminated"},
            "running": {"restarting", "terminated"},
            "restarting": {"running", "terminated"},
            "terminated": {"restarting"} if container in self.restored else set(),
        }[before]
        assert word in allowed, f"{before} -> {word}"
        if word in ("running", "restarting"):
            assert container == self.world.memory.active, f"{word}, but not active"

    # --- between two moments ---

    def rested(self) -> None:
        world, now, policy = self.world, self.world.now, self.world.policy
        trial = world.memory.trial
        judged = trial is not None and trial.container_id in world.boxes
        if judged and trial is not None and isinstance(world.desired, Run):
            assert now <= trial.since + policy.ready_timeout + SLACK, "judged for ever"
        for container_id, stop in world.memory.stops.items():
            box = world.boxes[container_id]
            if box.state in UP and box is not world.active:
                end = stop.drain_until if stop.term_at is None else stop.term_at
                assert now <= end + policy.stop_timeout + SLACK, "it never ends"
        if not self._leaving:
            self._lost_comes_back()
            self._active_is_served()
            self._bad_bake_was_reverted()
        self._phase_is_true()

    def _lost_comes_back(self) -> None:
        """Somebody removed what served; it is made again whatever else is going on."""
        world, release = self.world, self.world.memory.release
        if world.active is not None or release is None or not isinstance(world.desired, Run):
            return
        failure = world.memory.failure
        failed = failure is not None and failure.revision == release.revision
        known = release.revision in {*world.specs, self._wanted}
        back = any(box.revision == release.revision for box in world.boxes.values())
        assert back or failed or not known, "lost, and not made again"

    def _active_is_served(self) -> None:
        world = self.world
        active = world.active
        if active is None:
            return
        release = world.memory.release
        assert release is None or release.revision == active.revision, "mixed up"
        ending = active.term_at is not None
        if active.state is State.RUNNING and not ending:
            assert active.restarts or world.previous, "Docker would not restart it"
            if world.switching:
                assert world.routes == active.seen(world.now).targets
            if active.sick:
                assert self.starts or not self.starts_known, "unhealthy, and nothing is done"
        makes_way = not world.switching and len(world.boxes) > 1
        if active.state is State.EXITED and not makes_way and self.starts_known:
            assert self.starts, "left lying"
            pause = min(PAUSE_MAX, 2.0 ** (len(self.starts) - 1))
            assert world.now < self.starts[-1] + pause, "left lying for longer than its pause"

    def _bad_bake_was_reverted(self) -> None:
        if self.baking is None or self.world.previous is None:
            return
        box, starts, since = self.baking
        ended = box.state not in (State.RUNNING, State.PAUSED)
        failed = ended or box.starts != starts or box.sick
        mine = box is self.world.active and not self._leaving
        unseen = math.inf if box.restarts else _ended_at(box)
        early = min(self.world.now, unseen) < since + self.world.policy.bake_time
        assert not (mine and early and failed), "it failed its bake and was not switched back"

    def _phase_is_true(self) -> None:
        world = self.world
        active, failure = world.active, world.memory.failure
        if not isinstance(world.desired, Run) or self.phase is None:
            return
        right = active is not None and active.revision == self._wanted
        if self.phase.word is AgentWord.UPTODATE:
            assert right or self._restores(self._wanted), "uptodate, but not what is desired"
        if failure is not None and failure.revision == self._wanted and not right:
            assert self.phase.word is AgentWord.ERROR, "failed, and said nothing"
            assert self.phase.message


def _tried(trial: Trial | None) -> tuple[str, ...]:
    return (trial.container_id,) if trial else ()


def _ended_at(box: Box) -> float:
    return box.ended_at if box.state is State.EXITED else math.inf
