"""The one tick: observe, plan, execute, remember, say what is true. The product on one page."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace

from almagent.core.actions import Adopt, Route, RunHook, Switch
from almagent.core.backoff import pause
from almagent.core.memory import forget_gone, stayed
from almagent.core.model import (
    AgentStatus,
    AgentWord,
    Container,
    Desired,
    Keep,
    Leave,
    Observed,
    Prepared,
    Preparing,
    Run,
    Spec,
    State,
    Status,
    Target,
)
from almagent.core.planner import Plan, Policy, lost_first, plan
from almagent.core.reports import statuses
from almagent.executor import Executor
from almagent.health import Beat, unheard
from almagent.journal import logger
from almagent.ports import Engine, PortError, Router, Sockets
from almagent.preparer import Preparer
from almagent.state import State as Durable

LOOK_AGAIN = 60.0  # seconds between two looks when nothing happens at all
TROUBLE_PAUSE = 0.5  # seconds after a tick that met a neighbour in trouble, doubling
TROUBLE_PAUSE_MAX = 30.0
PROBE_TIMEOUT = 1.0  # seconds for a candidate's ports to accept

log = logger()


class Reconciler:
    """Owns what is desired and brings it about. `offer` takes statuses; it leaves out repeats."""

    def __init__(
        self,
        *,
        engine: Engine,
        router: Router | None,
        sockets: Sockets,
        preparer: Preparer,
        executor: Executor,
        durable: Durable,
        policy: Policy,
        offer: Callable[[Sequence[Status]], None],
        beat: Beat = unheard,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._router = router
        self._sockets = sockets
        self._preparer = preparer
        self._executor = executor
        self._durable = durable
        self._policy = policy
        self._offer = offer
        self._beat = beat
        self._clock = clock
        self._awake = asyncio.Event()
        self._looking = False  # a tick is under way
        self._troubles = 0  # ticks in a row that met a neighbour in trouble
        self._last = Plan()
        self._defined: Spec | None = None  # by the last document; None: none came since the start
        self.desired: Desired = Keep()
        self.seen: Observed | None = None
        self.seen_at = clock()
        self.problems: dict[str, str] = {}  # who has it -> what is wrong, while it is
        self.ticked = asyncio.Event()  # set after every tick, for those who wait for a change

    # --- what others may ask for ---

    def wake(self) -> None:
        """Look now: something may have changed."""
        self._awake.set()

    def run_spec(self, spec: Spec) -> None:
        """A document came. One that differs in anything from the last, a git key say, is tried at once."""
        if isinstance(self.desired, Leave):
            return
        if self._defined is not None and self._defined != spec:
            self._durable.memory = replace(self._durable.memory, failure=None)
        self._defined = spec
        self.desired = Run(spec)
        self.wake()

    def fall_back(self) -> None:
        """Nothing usable is defined: keep the last good release, or what runs."""
        if isinstance(self.desired, Leave):
            return
        release = self._durable.memory.release
        spec = self._durable.specs.get(release.revision) if release else None
        self.desired = Run(spec) if spec else Keep()
        self.wake()

    def leave(self, leave: Leave) -> None:
        self.desired = leave
        self.wake()

    @property
    def settled(self) -> bool:
        """The last tick saw the latest news, had nothing to do and nothing to wait for."""
        news = self._awake.is_set() or self._looking
        waiting = isinstance(self._preparer.state, Preparing)
        idle = not self._last.actions and self._last.wake_at is None
        return self.seen is not None and idle and not news and not waiting

    @property
    def gone(self) -> bool:
        """Leaving is complete."""
        return self._last.done

    # --- the loop ---

    async def run(self) -> None:
        try:
            while True:
                wait = await self.tick()
                self.ticked.set()
                self._beat(wait)
                await self._sleep(wait)
        finally:
            await self._preparer.cancel()
            await self._executor.close()

    async def tick(self) -> float:
        """Seconds until the next tick, if nothing wakes us before."""
        self._awake.clear()
        self._looking = True
        try:
            seen, todo = await self.think()
            if not any(isinstance(action, Adopt) for action in todo.actions):
                self._say(seen)  # else memory was lost: who serves is known from the next tick on
            names = [type(action).__name__.lower() for action in todo.actions]
            log.debug("tick.planned", actions=names, containers=len(seen.containers))
            for action in todo.actions:
                self._beat(action.limit if isinstance(action, RunHook) else 0.0)
                if not await self._executor.execute(action):
                    break
            await self._check_routes(todo)
            await self._leave_nothing(todo)
        except PortError as exc:
            return self._in_trouble(exc)
        finally:
            self._looking = False
            self._durable.save()
        return self._done(todo)

    async def think(self) -> tuple[Observed, Plan]:
        """What there is and what is to be done now; nothing is done yet. Raises PortError."""
        self.seen = seen = await self._observe()
        self.seen_at = self._clock()
        memory = forget_gone(self._durable.memory, {c.id for c in seen.containers})
        if isinstance(self.desired, Run):
            memory = stayed(memory)
        self._durable.memory = memory
        wanted = lost_first(self.desired, seen, memory, self._durable.specs)
        return seen, plan(wanted, seen, memory, self._policy, self._clock())

    async def _observe(self) -> Observed:
        containers = await self._engine.observe()
        routes = await self._router.routes() if self._router else None
        ports = self._ports_wanted({c.id for c in containers})
        listening = await self._sockets.listeners(ports) if ports else {}
        published = {port for c in containers if c.published for port in c.ports}
        return Observed(
            containers=tuple([await self._look_closer(c) for c in containers]),
            routes=routes,
            preparation=self._preparer.state,
            busy_ports={p: who for p, who in listening.items() if p not in published},
        )

    async def _look_closer(self, c: Container) -> Container:
        """Ask what costs something only where a decision hangs on it."""
        memory = self._durable.memory
        if c.state is not State.RUNNING or not c.ports:
            return c
        if c.id in memory.stops:
            return replace(c, connections=await self._sockets.connections(c.pid, c.ports))
        if c.id == memory.active:
            return c
        if c.health is None and c.status_word is None:
            open_ = await self._sockets.accepts(c.address, c.ports, PROBE_TIMEOUT)
            return replace(c, listening=open_)
        return c

    def _ports_wanted(self, present: Collection[str]) -> tuple[int, ...]:
        """Ports of the release that may be created next."""
        if isinstance(self._preparer.state, Prepared):
            return self._preparer.state.release.ports
        memory = self._durable.memory
        lost = memory.active not in present
        return memory.release.ports if lost and memory.release else ()

    async def _check_routes(self, todo: Plan) -> None:
        """Foreign rules may take a port before ours do, which what the kernel lists of ours does not show."""
        router, before = self._router, self.problems.get("routes", "")
        pointed = any(isinstance(action, Switch | Route) for action in todo.actions)
        if router is None or not (pointed or before):
            return
        routes = await router.routes()
        taken = [port for port, t in routes.items() if await self._is_taken(router, port, t)]
        self.problems.pop("routes", None)
        if taken:
            ports = ", ".join(map(str, taken))
            text = f"cannot serve port {ports}: other NAT rules of this host come first"
            self.problems["routes"] = text
            if text != before:
                log.warning("routes.taken", ports=taken)

    async def _is_taken(self, router: Router, port: int, target: Target) -> bool:
        """The container accepts on the port, but a client of the host meets somebody else there."""
        if not await self._sockets.accepts(target.address, [port], PROBE_TIMEOUT):
            return False
        try:
            return not await router.probe(port, target.address)
        except PortError:  # connection tracking cannot be asked here
            return False

    async def _leave_nothing(self, todo: Plan) -> None:
        """The last container has gone: what was there for all of them goes too, once."""
        if todo.done and not self._last.done:
            if self._router is not None:
                await self._router.clear()
            await self._engine.collect(())

    def _say(self, seen: Observed) -> None:
        """Offer the statuses that are true now, together with the memory that they have been."""
        memory, policy = self._durable.memory, self._policy
        unfinished = self._durable.outbox.open_containers()
        told = statuses(self.desired, seen, memory, policy, unfinished)
        if self.problems and not isinstance(self.desired, Leave):
            error = AgentStatus(AgentWord.ERROR, "; ".join(self.problems.values()))
            told = (*(s for s in told if not isinstance(s, AgentStatus)), error)
        active = next((c for c in seen.containers if c.id == memory.active), None)
        if active is not None and active.state is State.RUNNING:
            self._durable.memory = replace(memory, incarnation=active.incarnation)
        self._offer(told)

    # --- between two ticks ---

    def _done(self, todo: Plan) -> float:
        if self.problems.pop("tick", None):
            log.info("reconciler.recovered")
        self._troubles = 0
        stuck = bool(todo.actions) and todo.actions == self._last.actions
        self._last = todo
        if todo.actions:
            return TROUBLE_PAUSE if stuck else 0.0  # the world has changed: look again
        if todo.wake_at is None:
            return LOOK_AGAIN
        return min(LOOK_AGAIN, max(0.0, todo.wake_at - self._clock()))

    def _in_trouble(self, exc: PortError) -> float:
        """A neighbour is away or refuses: say so once, try again ever more slowly."""
        text = str(exc)
        if self.problems.get("tick") != text:
            log.warning("reconciler.trouble", reason=text)
        self.problems["tick"] = text
        self._last = Plan(wake_at=self._clock())
        if not isinstance(self.desired, Leave):
            self._offer([AgentStatus(AgentWord.ERROR, "; ".join(self.problems.values()))])
        self._troubles += 1
        return pause(self._troubles, TROUBLE_PAUSE, TROUBLE_PAUSE_MAX)

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._awake.wait()
