"""A host in memory and the agent on it: it does with a plan what the executor and the reconciler do,
without the waiting, and forgets what a process forgets when it is killed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import assert_never

from almagent.core import actions as do
from almagent.core.memory import Memory, failed, forget_gone, remember, start_refused, stayed
from almagent.core.model import (
    Container,
    ContainerStatus,
    Desired,
    Keep,
    Leave,
    Observed,
    Preparation,
    Prepared,
    PrepareFailed,
    Preparing,
    Run,
    Spec,
    State,
    Status,
)
from almagent.core.outbox import Outbox
from almagent.core.planner import Plan, Policy, Strategy, lost_first, plan
from almagent.core.reports import statuses
from tests.pure.host import App, Box, Host, Refused, release_of

LOOK_AGAIN = 60.0  # seconds between two looks when nothing happens, as in the reconciler
TROUBLE_PAUSE = 0.5  # seconds after a tick that met a neighbour in trouble, as in the reconciler
USELESS_AFTER = 3  # refused starts in a row, as in the executor
MANY_TICKS = 60  # at one moment; a plan that needs more never ends


class Trouble(Exception):
    """The neighbour does not answer."""


class Killed(Exception):
    """The agent's process is gone."""


class Watcher:
    """Sees what the agent does, as it does it."""

    def planned(self, plan: Plan) -> None: ...

    def before(self, action: do.Action) -> None: ...

    def after(self, action: do.Action) -> None:
        """Done, but not yet remembered."""

    def cut(self) -> None:
        """The agent was killed, or the neighbour gave no answer, in the middle of a plan."""

    def told(self, status: Status) -> None: ...

    def document_changed(self) -> None: ...

    def rested(self) -> None:
        """The agent has nothing to do just now."""


class World(Host):
    def __init__(self, strategy: Strategy = Strategy.SWITCH, **times: float) -> None:
        super().__init__()
        self.policy = Policy(strategy, **times)
        self.document: Spec | None = None
        self.memory = Memory()
        self.specs: dict[str, Spec] = {}
        self.outbox = Outbox()
        self.told: list[Status] = []
        self.seen = Observed()
        self.last = Plan()
        self.watch: Watcher = Watcher()
        self.cut: tuple[int, type[Exception], bool] | None = None  # actions left, what, remembered
        self.gone = False
        self.troubled = False  # the last tick met a neighbour in trouble
        self._begin()

    def _begin(self) -> None:
        """What a new process knows."""
        self.desired: Desired = Keep()
        self._known: Spec | None = None  # the last document that came
        self.preparation: Preparation | None = None
        self._prepared_at = math.inf
        self._prepares: Spec | None = None

    # --- what a person, a program or a fault does ---

    def publish(self, revision: str, app: App | None = None) -> None:
        """A document comes. `app`: how containers made from now on behave."""
        if app is not None or revision not in self.apps:
            self.apps[revision] = app or App()
        self.document = Spec(revision=revision, image=f"image:{revision}")
        self.run_spec(self.document)

    def run_spec(self, spec: Spec) -> None:
        if isinstance(self.desired, Leave):
            return
        if self._known is not None and self._known != spec:
            self.memory = replace(self.memory, failure=None)
            self.watch.document_changed()
        self._known = spec
        self.desired = Run(spec)

    def fall_back(self) -> None:
        if isinstance(self.desired, Leave):
            return
        release = self.memory.release
        spec = self.specs.get(release.revision) if release else None
        self.desired = Run(spec) if spec else Keep()

    def restart_agent(self, *, api: bool = True) -> None:
        """`api`: the document is known at once."""
        self._begin()
        if not api:
            self.fall_back()
        elif self.document is not None:
            self.run_spec(self.document)

    def lose_memory(self) -> None:
        self.memory, self.outbox, self.specs = Memory(), Outbox(), {}

    def reboot_host(self) -> None:
        """As the engine, and the rules are gone; times that were remembered mean nothing any more."""
        self.reboot_engine()
        self.routes = {}
        held = self.memory.failure
        self.memory = Memory(
            active=self.memory.active,
            release=self.memory.release,
            previous=self.memory.previous,
            failure=held if held is not None and held.retry_at is None else None,
        )
        self.restart_agent()

    # --- what is asked about the world ---

    @property
    def switching(self) -> bool:
        return self.policy.strategy is Strategy.SWITCH

    @property
    def active(self) -> Box | None:
        return self.boxes.get(self.memory.active)

    @property
    def previous(self) -> Box | None:
        return self.boxes.get(self.memory.previous)

    # --- time ---

    def run(self, seconds: float) -> None:
        """The agent lives for so long."""
        end = self.now + seconds
        while True:
            wake = self.settle()
            if wake >= end:
                break
            self.pass_time(wake - self.now)
        self.pass_time(end - self.now)

    def settle(self) -> float:
        """Ticks until nothing is to be done now; when to look again."""
        for _ in range(MANY_TICKS):
            pause = self.tick()
            if pause > 0:
                if not self.troubled:
                    self.watch.rested()
                return min(self.now + min(pause, LOOK_AGAIN), self.next_event())
        raise AssertionError(f"the agent is never done: {self.last}")

    def next_event(self) -> float:
        return min(self._prepared_at, super().next_event())

    def happen(self) -> None:
        super().happen()
        if self._prepared_at <= self.now:
            self._prepared()

    # --- one tick of the agent ---

    def tick(self) -> float:
        """Seconds to wait, 0.0: look again at once."""
        seen = self.observe()
        self.memory = forget_gone(self.memory, {c.id for c in seen.containers})
        if isinstance(self.desired, Run):
            self.memory = stayed(self.memory)
        wanted = lost_first(self.desired, seen, self.memory, self.specs)
        todo = plan(wanted, seen, self.memory, self.policy, self.now)
        self.seen, self.last = seen, todo
        self.troubled = False
        self.watch.planned(todo)
        self._say(seen)
        try:
            for action in todo.actions:
                if not self.execute(action):
                    break
        except Trouble:
            self.watch.cut()
            self.troubled = True
            return TROUBLE_PAUSE
        except Killed:
            self.watch.cut()
            self.restart_agent()
            return 0.0
        self.gone = todo.done
        if self.gone:
            self.routes.clear()  # as the reconciler has the router do
        if todo.actions:
            return 0.0
        return LOOK_AGAIN if todo.wake_at is None else todo.wake_at - self.now

    def observe(self) -> Observed:
        containers = sorted(self.boxes.values(), key=lambda box: (box.created, box.id))
        return Observed(
            containers=tuple(self._look_closer(box) for box in containers),
            routes=dict(self.routes) if self.switching or self.routes else None,
            preparation=self.preparation,
            busy_ports=dict(self.foreign),
        )

    def _look_closer(self, box: Box) -> Container:
        c = box.seen(self.now)
        if c.state is not State.RUNNING or not c.ports:
            return c
        if c.id in self.memory.stops:
            return replace(c, connections=int(box.connected(self.now)))
        if c.id != self.memory.active and c.health is None and c.status_word is None:
            return replace(c, listening=box.works(self.now))
        return c

    def _say(self, seen: Observed) -> None:
        unfinished = self.outbox.open_containers()
        told = statuses(self.desired, seen, self.memory, self.policy, unfinished)
        active = next((c for c in seen.containers if c.id == self.memory.active), None)
        if active is not None and active.state is State.RUNNING:
            self.memory = replace(self.memory, incarnation=active.incarnation)
        for status in told:
            if self.outbox.offer(status, self.now):
                self.told.append(status)
                self.watch.told(status)

    # --- one action ---

    def execute(self, action: do.Action) -> bool:
        self.watch.before(action)
        cut = self._cut_now()
        if cut is not None and cut[0] is Trouble:
            raise Trouble
        try:
            self._perform(action)
        except Refused as exc:
            return self._refused(action, str(exc))
        self.note_traffic()
        self.watch.after(action)
        if cut is None or cut[1]:
            self._remember(action)
        if cut is not None:
            raise cut[0]
        return True

    def _cut_now(self) -> tuple[type[Exception], bool] | None:
        if self.cut is None:
            return None
        left, what, remembered = self.cut
        self.cut = (left - 1, what, remembered) if left else None
        return None if left else (what, remembered)

    def _remember(self, action: do.Action) -> None:
        self.memory = remember(self.memory, action, self.now)
        if isinstance(action, do.Create):
            self.specs[action.spec.revision] = action.spec

    def _refused(self, action: do.Action, message: str) -> bool:
        match action:
            case do.Create():
                self.memory = failed(self.memory, action.spec.revision, message, self.now)
            case do.Start(container=c, active=False):
                self.boxes.pop(c.id, None)
                self.memory = failed(self.memory, c.revision, message, self.now)
            case do.Start(container=c):
                self.memory = start_refused(self.memory, c, self.now)
                if self.memory.starts and self.memory.starts.count >= USELESS_AFTER:
                    self.boxes.pop(c.id, None)
                return False
            case _:
                raise AssertionError(f"nothing of that kind is refused: {action}")
        self._cancel()
        return False

    def _perform(self, action: do.Action) -> None:
        match action:
            case do.Prepare(spec=spec):
                self._prepare(spec)
            case do.Abandon() | do.Reject():
                self._cancel()
            case do.Create(release=release, publish=publish):
                self.create(release, publish=publish)
            case do.Start(container=c):
                self.start(self.boxes[c.id])
            case do.Switch(container=c, routed=routed):
                if routed:
                    self.routes = dict(c.targets)
                self._cancel()
            case do.Route(targets=targets):
                self.routes = dict(targets)
            case do.KeepRestarting(container=c):
                self.boxes[c.id].restarts = True
            case do.Discard(container=c):
                self._cancel()
                self.boxes.pop(c.id, None)
            case do.Terminate(container=c):
                self.terminate(self.boxes.get(c.id))
            case do.Kill(container=c):
                self.kill(self.boxes.get(c.id))
            case do.Remove(container=c):
                self.boxes.pop(c.id, None)
            case do.Watch() | do.Adopt() | do.Revert() | do.Retire() | do.RunHook() | do.Collect():
                pass
            case _:
                assert_never(action)

    # --- preparation ---

    def _prepare(self, spec: Spec) -> None:
        self.preparation, self._prepares = Preparing(spec.revision), spec
        self._prepared_at = self.now + self.apps[spec.revision].prepare_time

    def _prepared(self) -> None:
        spec, self._prepares, self._prepared_at = self._prepares, None, math.inf
        assert spec is not None
        if not self.apps[spec.revision].prepared:
            self.preparation = PrepareFailed(spec.revision, "cannot pull: no such image")
            return
        self.preparation = Prepared(release_of(spec, self.apps[spec.revision]))

    def _cancel(self) -> None:
        self.preparation, self._prepares, self._prepared_at = None, None, math.inf


def words_of(world: World, container_id: str) -> list[str]:
    """What was told about one container, in order."""
    told = (s for s in world.told if isinstance(s, ContainerStatus) and s.own)
    return [str(s.word) for s in told if s.container_id == container_id]
