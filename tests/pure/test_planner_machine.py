"""The planner against a host on which everything goes wrong, in every order that Hypothesis thinks of.

`Judge` holds what must never happen; the last step of each run is that faults stop and the host must come
to rest with exactly what is desired. ALMAGENT_THOROUGH=1 tries ten times as many and longer stories,
other ones each time; ALMAGENT_UNSHRUNK=1 reports the first failure as it was found.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from almagent.core.model import (
    AgentStatus,
    AgentWord,
    Leave,
    State,
)
from almagent.core.planner import Strategy
from tests.pure.host import UP, App, Box
from tests.pure.judge import PAUSE_MAX, SLACK, Judge
from tests.pure.world import Killed, Trouble, World

TIMES = {"ready_timeout": 20.0, "drain_timeout": 8.0, "stop_timeout": 6.0, "bake_time": 12.0}

APPS = {
    "good": App(),
    "slow": App(ready_after=7.0),
    "two ports": App(ports=(80, 443)),
    "healthy": App(shows="health", ready_after=3.0),
    "never healthy": App(shows="health", ready_after=None),
    "says complete": App(shows="word", ready_after=2.0),
    "never says complete": App(shows="word", ready_after=None),
    "no ports": App(ports=(), shows="time", ready_after=5.0),
    "never listens": App(ready_after=None),
    "dies at once": App(dies_after=0.05),
    "dies soon": App(dies_after=5.0),
    "dies late": App(dies_after=25.0),
    "deaf": App(ends_after=None),
    "long requests": App(requests_last=4.0),
    "endless requests": App(requests_last=math.inf),
    "no image": App(prepared=False),
    "not created": App(created=False),
    "not started": App(started=False),
}


GOOD = ["good", "good", "slow", "two ports", "healthy", "healthy", "says complete", "long requests"]


def rules_are_flushed(world: World) -> None:
    world.routes = {}


def foreign_process_listens(world: World) -> None:
    world.foreign = {443: "nginx"}


def foreign_process_ends(world: World) -> None:
    world.foreign = {}


def active_gets_another_address(world: World) -> None:
    if world.active:
        world.active.address = f"172.30.1.{world.active.starts + 1}"


def all_recover(world: World) -> None:
    for box in world.boxes.values():
        box.sick = False


def engine_restarts(world: World) -> None:
    world.reboot_engine()


def somebody_restarts_the_active_one(world: World) -> None:
    if world.active and world.active.state in UP:
        world.docker_kill(world.active)
        world.pass_time(0.1)
        world.active.run(world.now)


Incident = Callable[[World], None]
INCIDENTS: list[Incident] = [
    rules_are_flushed,
    foreign_process_listens,
    foreign_process_ends,
    active_gets_another_address,
    all_recover,
    engine_restarts,
    somebody_restarts_the_active_one,
]

apps = st.sampled_from(GOOD) | st.sampled_from(sorted(APPS))
revisions = st.sampled_from("abc")
seconds = st.sampled_from([0.0, 0.3, 1.0, 2.0, 5.0, 13.0, 30.0, 120.0])
picks = st.integers(0, 3)


class HostMachine(RuleBasedStateMachine):
    world: World
    judge: Judge
    sound = False

    @initialize(
        strategy=st.sampled_from(Strategy),
        app=apps,
        leaves=st.booleans(),
        then=seconds,
    )
    def begin(self, strategy: Strategy, app: str, leaves: bool, then: float) -> None:
        self.may_leave = leaves
        self.world = World(strategy, **TIMES)
        self.judge = self.world.watch = Judge(self.world)
        self.world.publish("a", APPS[app])
        self.world.run(then)

    # --- the control plane ---

    @rule(revision=revisions, app=apps, then=seconds)
    def publish(self, revision: str, app: str, then: float) -> None:
        self.judge.disturbed()
        self.world.publish(revision, APPS[app])
        self.world.run(then)

    @rule(revision=revisions, then=seconds)
    def publish_again(self, revision: str, then: float) -> None:
        self.judge.disturbed()
        self.world.publish(revision)
        self.world.run(then)

    @rule(app=st.sampled_from(GOOD))
    def mend(self, app: str) -> None:
        """The image, or what the program needs, is in order now."""
        for revision in self.world.apps:
            self.world.apps[revision] = APPS[app]

    @rule()
    def nothing_defined(self) -> None:
        self.judge.disturbed()
        self.world.document = None
        self.world.fall_back()

    # --- time ---

    @rule(time=seconds)
    def time_passes(self, time: float) -> None:
        self.world.run(time)

    # --- faults ---

    def _pick(self, pick: int, *states: State) -> Box | None:
        """The active container is the most interesting one."""
        boxes = [box for box in self.world.boxes.values() if box.state in (states or tuple(State))]
        boxes.sort(key=lambda box: box.id != self.world.memory.active)
        return boxes[pick % len(boxes)] if boxes else None

    @rule(pick=picks, then=seconds)
    def crashes(self, pick: int, then: float) -> None:
        if box := self._pick(pick, State.RUNNING):
            self.world.crash(box)
            self.world.run(then)

    @rule(pick=picks, then=seconds)
    def docker_kill(self, pick: int, then: float) -> None:
        if box := self._pick(pick, *UP):
            self.world.docker_kill(box)
            self.world.run(then)

    @rule(pick=picks)
    def docker_rm(self, pick: int) -> None:
        self.judge.disturbed()
        if box := self._pick(pick):
            del self.world.boxes[box.id]

    @rule(pick=picks)
    def docker_pause(self, pick: int) -> None:
        if box := self._pick(pick, State.RUNNING):
            box.ended_at, box.state = self.world.now, State.PAUSED

    @rule(pick=picks, then=seconds)
    def turns_unhealthy(self, pick: int, then: float) -> None:
        box = self._pick(pick, State.RUNNING)
        if box is not None and box.app.shows == "health":
            box.sick = True
            self.world.run(then)

    @rule(what=st.sampled_from(INCIDENTS), then=seconds)
    def something_happens(self, what: Incident, then: float) -> None:
        self.judge.disturbed()
        what(self.world)
        self.world.run(then)

    @rule(time=seconds, api=st.booleans())
    def agent_is_away(self, time: float, api: bool) -> None:
        self.judge.disturbed()
        self.judge.baking = None
        self.world.pass_time(time)
        self.world.restart_agent(api=api)

    @rule(
        left=st.integers(0, 4),
        what=st.sampled_from([Killed, Trouble]),
        remembered=st.booleans(),
    )
    def next_actions_are_cut(self, left: int, what: type[Exception], remembered: bool) -> None:
        """The agent is killed after so many actions, or the neighbour does not answer."""
        self.world.cut = (left, what, remembered)

    @rule()
    def memory_is_lost(self) -> None:
        self.world.lose_memory()
        self.judge.forgotten()
        self.world.restart_agent()

    @rule()
    def host_restarts(self) -> None:
        self.judge.rebooted()
        self.world.reboot_host()

    # --- the end ---

    @precondition(lambda self: self.may_leave and not isinstance(self.world.desired, Leave))
    @rule(budget=st.sampled_from([None, 1.0, 5.0, 12.0, 40.0, 110.0]))
    def leave(self, budget: float | None) -> None:
        world = self.world
        done_by = None if budget is None else world.now + budget
        self.judge.left_at = world.now
        world.desired = Leave("spot", done_by, hook="/pre_shutdown.sh")

    @invariant()
    def agent_comes_to_rest(self) -> None:
        self.sound = False
        if hasattr(self, "world"):
            while self.world.settle() and self.world.troubled:
                self.world.pass_time(SLACK)
            self.sound = True

    def teardown(self) -> None:
        if not self.sound:
            return
        self.world.cut = None
        if isinstance(self.world.desired, Leave):
            self._ends()
        else:
            self._converges()

    def _ends(self) -> None:
        world = self.world
        assert isinstance(world.desired, Leave)
        policy = world.policy
        bound = policy.drain_timeout + policy.stop_timeout + 2 * SLACK
        if world.desired.done_by is not None:
            bound = max(0.0, world.desired.done_by - world.now) + SLACK
        world.run(bound)
        assert not world.boxes, "something is left"
        assert not world.routes
        assert world.gone
        assert world.outbox.open_containers() == [], "not reported as terminated"

    def _converges(self) -> None:
        world = self.world
        world.foreign = {}
        for box in world.boxes.values():
            box.sick, box.app = False, App(ports=box.app.ports)
        world.apps = dict.fromkeys(world.apps, App(ports=(80, 8080)))
        held = world.memory.failure is not None and world.memory.failure.retry_at is None
        if world.document is None or held:
            world.publish("z", App(ports=(80, 8080)))
        else:
            world.run_spec(world.document)
        world.run(PAUSE_MAX + sum(TIMES.values()) + 60 * SLACK)
        self._is_converged()
        told = len(world.told)
        world.run(120.0)
        assert len(world.told) == told, "it repeats itself"
        self._is_converged()

    def _is_converged(self) -> None:
        world, document = self.world, self.world.document
        assert document is not None
        [box] = world.boxes.values()
        assert box.revision == document.revision
        assert box.state is State.RUNNING
        assert box.restarts
        assert world.serves(box) or not box.app.ports
        if world.switching:
            assert world.routes == box.seen(world.now).targets
        assert not world.last.actions
        assert world.last.wake_at is None
        assert self.judge.phase == AgentStatus(AgentWord.UPTODATE)
        assert self.judge.words[box.id] == "running"


THOROUGH = "ALMAGENT_THOROUGH" in os.environ

TestHost = pytest.mark.timeout(3600 if THOROUGH else 120)(HostMachine.TestCase)
TestHost.settings = settings(
    max_examples=4000 if THOROUGH else 300,
    stateful_step_count=60 if THOROUGH else 30,
    derandomize=not THOROUGH,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    phases=[Phase.generate] if "ALMAGENT_UNSHRUNK" in os.environ else list(Phase),
    suppress_health_check=list(HealthCheck),
)
