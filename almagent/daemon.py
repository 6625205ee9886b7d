"""The agent's life: named loops in one TaskGroup, signals, exit code."""

from __future__ import annotations

import asyncio
import math
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from enum import Enum
from os import _exit as hard_exit

from almagent.alone import lock_in
from almagent.core.memory import Memory
from almagent.core.model import AgentStatus, AgentWord, Leave, Run
from almagent.errors import SettingsError
from almagent.journal import logger
from almagent.local import Local, Surface
from almagent.notify import ServiceManager
from almagent.parts import Parts, assemble
from almagent.ports import PortError, Progress, no_progress
from almagent.redaction import Redactor
from almagent.service import keep_informed
from almagent.settings import Settings
from almagent.watchers import watch_changes
from almagent.wiring import former_role

STOP_TIMEOUT = 4.5  # seconds from the signal to the exit, whatever hangs
LAST_WORDS = 2.0  # seconds to hand over statuses that wait when the agent stops ...
FAREWELL = 5.0  # ... and when nothing of it is left to say them later
TROUBLE_PATIENCE = 15.0  # seconds that leaving goes on against a neighbour in trouble

log = logger()


class Goal(Enum):
    SERVE = "until a signal"
    CONVERGE = "until converged or failed"
    LEAVE = "until nothing of ours is left"


class Outcome(Enum):
    DONE = "the goal is reached"
    STOPPED = "a signal came before"
    UNTOLD = "nothing of ours is left, but not all of it could be told"
    FAILED = "the goal is out of reach"
    RELOAD = "all is to begin anew"


def unchecked() -> None:
    """For those whose settings do not change."""


class Agent:
    """Everything that runs, and what it is asked from outside."""

    def __init__(
        self,
        settings: Settings,
        redactor: Redactor,
        goal: Goal = Goal.SERVE,
        progress: Progress = no_progress,
        check_settings: Callable[[], object] = unchecked,
    ) -> None:
        """`check_settings` raises SettingsError: as they are now, nothing can be begun with them."""
        self.settings = settings
        self._redactor = redactor
        self._goal = goal
        self._progress = progress
        self._check_settings = check_settings
        self._parts: Parts | None = None
        self._manager = ServiceManager()
        self._end = asyncio.Event()
        self._contact = asyncio.Event()
        self._asked_to_leave = asyncio.Event()
        self._gone = asyncio.Event()
        self._outcome = Outcome.FAILED
        self._signalled = False
        self.asked_to_reload = False  # and did not, in the midst of leaving
        self._lock = lock_in(settings.runtime_dir)

    async def run(self) -> Outcome:
        """Until the goal is reached or a signal comes. Raises Refused: another one runs."""
        self._lock.acquire()
        try:
            parts = self._parts = await assemble(self.settings, self._redactor, self._progress)
            try:
                async with self._local(parts):
                    await self._serve(parts)
            finally:
                parts.engine.close()
                with suppress(PortError):
                    await parts.api.close()
        finally:
            self._lock.release()
        return self._outcome

    async def _serve(self, parts: Parts) -> None:
        if self._goal is not Goal.LEAVE:  # before anything that the loops have to say
            parts.offer([AgentStatus(AgentWord.STARTING)], force=True)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(_endless(name, loop), name=name)
                    for name, loop in self._loops(parts).items()
                ]
                await self._end.wait()
                for task in tasks:
                    task.cancel()
        finally:
            await self._say_last_words(parts)

    async def _say_last_words(self, parts: Parts) -> None:
        farewell = self._goal is Goal.LEAVE and self._outcome is Outcome.DONE
        told = await parts.reporter.flush(time.monotonic() + (FAREWELL if farewell else LAST_WORDS))
        if farewell and not told and not self._signalled:
            self._outcome = Outcome.UNTOLD
        if self._goal is Goal.LEAVE and self._outcome is not Outcome.DONE:
            facts = {"gone": self._gone.is_set(), "statuses_waiting": len(parts.state.outbox)}
            if self._signalled:
                log.warning("stop.interrupted", **facts)
            elif self._outcome is not Outcome.UNTOLD:  # of that the caller tells
                log.error("stop.failed", **facts)

    def _loops(self, parts: Parts) -> dict[str, Callable[[], Awaitable[None]]]:
        loops: dict[str, Callable[[], Awaitable[None]]] = {
            "reconcile": parts.reconciler.run,
            "report": lambda: self._report(parts),
            "leave": lambda: self._leave_when_asked(parts),
            "inform the service manager": lambda: self._keep_informed(parts),
            "watch containers": lambda: self._watch(parts, "containers", parts.engine.changes),
            "look for the cloud": parts.look_for_cloud,
            "begin anew": lambda: self._begin_anew(parts),
        }
        if parts.router is not None:
            changes = parts.router.changes
            loops["watch routes"] = lambda: self._watch(parts, "routes", changes)
        if parts.interruptions is not None:
            loops["watch interruptions"] = parts.interruptions.run
        if self._goal is Goal.LEAVE:
            loops["until gone"] = lambda: self._until_gone(parts)
        else:
            loops["register and poll"] = lambda: self._register_and_poll(parts)
        if self._goal is Goal.CONVERGE:
            loops["until converged"] = lambda: self._until_converged(parts)
        return loops

    # --- loops ---

    async def _register_and_poll(self, parts: Parts) -> None:
        """`starting` is the first thing the control plane hears, then it is asked for the document."""
        wait = parts.documents_phase.first_wait(self.settings.api.start_splay)
        parts.poll_beat(wait + self.settings.api.timeout)
        await asyncio.sleep(wait)
        self._contact.set()
        await parts.reporter.attempted.wait()
        await parts.documents.run()

    async def _report(self, parts: Parts) -> None:
        """Nothing is said before the first contact, which the whole fleet makes at different moments."""
        parts.report_beat(self.settings.api.start_splay)
        await self._contact.wait()
        await parts.reporter.run()

    async def _watch(
        self, parts: Parts, what: str, changes: Callable[[], AsyncIterator[object]]
    ) -> None:
        beat = parts.health.register(f"watch {what}")
        await watch_changes(what, changes, parts.reconciler, beat)

    async def _keep_informed(self, parts: Parts) -> None:
        leaving = self._goal is Goal.LEAVE  # and asks for no document
        await keep_informed(
            self._manager,
            started=parts.reconciler.ticked if leaving else parts.documents.polled,
            changed=parts.reconciler.ticked,
            status=parts.overview.snapshot,
            health=parts.health,
        )

    async def _leave_when_asked(self, parts: Parts) -> None:
        """What is left of us afterwards is a daemon that polls and reports; the next start deploys anew."""
        await self._asked_to_leave.wait()
        reconciler = parts.reconciler
        if not isinstance(reconciler.desired, Leave):
            hook = self.settings.cloud.pre_shutdown or None
            reconciler.leave(Leave("stop requested", None, hook))
        while not reconciler.gone:
            reconciler.ticked.clear()
            await reconciler.ticked.wait()
        parts.state.memory = Memory()
        parts.state.keep_specs()
        parts.offer([AgentStatus(AgentWord.STOPPED)])
        log.info("agent.gone")
        self._gone.set()
        await asyncio.Event().wait()

    async def _begin_anew(self, parts: Parts) -> None:
        """As after a restart: the cloud lets this instance live, or tells only now who it is."""
        await parts.anew.wait()
        self._reload()
        await asyncio.Event().wait()

    async def _until_gone(self, parts: Parts) -> None:
        parts.poll_beat(math.inf)
        self._contact.set()
        self._asked_to_leave.set()
        well = time.monotonic()
        while not self._gone.is_set():
            if not parts.reconciler.problems:
                well = time.monotonic()
            elif time.monotonic() - well > TROUBLE_PATIENCE:
                break
            await asyncio.sleep(0.1)
        self.end(Outcome.DONE if self._gone.is_set() else Outcome.FAILED)
        await asyncio.Event().wait()

    async def _until_converged(self, parts: Parts) -> None:
        """A failure ends it one tick after it was met: by then it is offered as a status."""
        reconciler = parts.reconciler
        await parts.documents.polled.wait()
        reason = ""
        while True:
            reconciler.ticked.clear()
            before, reason = reason, self._why_failed(parts)
            if reason and reason == before:
                log.error("once.failed", reason=reason)
                self.end(Outcome.FAILED)
            elif reason:
                reconciler.wake()
            elif reconciler.settled:
                self.end(Outcome.DONE)
            await reconciler.ticked.wait()

    def _why_failed(self, parts: Parts) -> str:
        if parts.reconciler.problems:
            return "; ".join(parts.reconciler.problems.values())
        failure = parts.state.memory.failure
        desired = parts.reconciler.desired
        if isinstance(desired, Run) and failure and failure.revision == desired.spec.revision:
            return failure.message
        return "" if isinstance(desired, Run) else f"nothing is defined for {self.settings.flag}"

    # --- what it is asked ---

    def _local(self, parts: Parts) -> Local:
        surface = Surface(
            status=parts.overview.snapshot,
            loops=parts.health.loops,
            metrics=lambda: parts.metrics.render(parts.overview.snapshot(), parts.health),
            reconcile=parts.documents.poll_now,
            stop=self._asked_to_leave.set,
        )
        return Local(self.settings.runtime_dir, surface, self.settings.metrics.listen)

    def end(self, outcome: Outcome) -> None:
        """Leave in good order; containers keep running and serving. A signal is the last word."""
        if not self._signalled:
            self._outcome = outcome
        self._end.set()

    def stop(self) -> None:
        """At a signal. The second one leaves at once, and nothing outlives the deadline."""
        if self._signalled:
            hard_exit(1)
        self._manager.stopping()
        self.end(Outcome.STOPPED)
        self._signalled = True
        code = int(self._goal is not Goal.SERVE)  # another goal is not reached
        last_resort = threading.Timer(STOP_TIMEOUT, hard_exit, args=(code,))
        last_resort.daemon = True
        last_resort.start()

    def hang_up(self) -> None:
        """At a SIGHUP: begin anew with the settings as they are now, if they will do."""
        problems = self._parts.reconciler.problems if self._parts else {}
        try:
            self._check_settings()
        except SettingsError as exc:
            log.error("settings.refused", problems=exc.lines, in_force="the former ones")  # noqa: TRY400  expected
            what = f"cannot use the settings as they are now: {'; '.join(exc.lines)}"
            problems["settings"] = f"{what}; the former ones stay in force"
        else:
            self._reload()
        if self._parts:
            self._parts.reconciler.wake()
            self._parts.documents.poll_now()

    def _reload(self) -> None:
        """Not in the midst of leaving."""
        if self._asked_to_leave.is_set():
            self.asked_to_reload = True
            log.warning("agent.not_reloaded", reason="it was asked to stop its containers")
            return
        self._manager.reloading()
        self.end(Outcome.RELOAD)


async def _endless(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    """A loop that returns is a bug, and a bug ends the agent: the service manager starts it again."""
    await loop()
    raise RuntimeError(f"the loop {name!r} has ended")


async def serve(
    settings: Settings, redactor: Redactor, goal: Goal, check_settings: Callable[[], object]
) -> Outcome:
    """As `run`. On a host that worked for another stack or flag, what served that one leaves first."""
    former = former_role(settings)
    if former is not None:
        log.warning("agent.role_changed", former_stack=former.stack_id, former_flag=former.flag)
        leaving = Agent(former, redactor, Goal.LEAVE)
        outcome = await _with_signals(leaving)
        if outcome is Outcome.UNTOLD:  # its credentials may be void: nobody is served by waiting
            log.warning("agent.former_role_untold", then="what was to be said of it is dropped")
        elif outcome is not Outcome.DONE:
            return outcome
        if leaving.asked_to_reload:
            return Outcome.RELOAD
    return await run(settings, redactor, goal, check_settings=check_settings)


async def run(
    settings: Settings,
    redactor: Redactor,
    goal: Goal = Goal.SERVE,
    progress: Progress = no_progress,
    check_settings: Callable[[], object] = unchecked,
) -> Outcome:
    """The agent with its signals. Raises Refused when another agent holds the lock."""
    return await _with_signals(Agent(settings, redactor, goal, progress, check_settings))


async def _with_signals(agent: Agent) -> Outcome:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    loop.add_signal_handler(signal.SIGHUP, agent.hang_up)
    return await agent.run()
