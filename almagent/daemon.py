"""The only wiring: adapters built, named loops started in one TaskGroup, signals, exit code."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from enum import Enum
from os import _exit as hard_exit

import structlog

from almagent import __version__
from almagent.adapters import metadata as clouds
from almagent.adapters import router as nft
from almagent.adapters import sockets
from almagent.adapters.api import AlmApi
from almagent.adapters.engine import DockerEngine
from almagent.adapters.source import GitSourceAdapter
from almagent.adapters.store import FileStore, Lock, agent_id
from almagent.core.model import AgentStatus, AgentWord, Run, Spec, Status
from almagent.core.planner import Policy, Strategy
from almagent.executor import Executor
from almagent.logs import Redactor
from almagent.pacing import Phase
from almagent.ports import Metadata, PortError, Progress, Refused, no_progress
from almagent.preparer import Preparer
from almagent.reconciler import Reconciler
from almagent.reporter import Reporter
from almagent.settings import Settings
from almagent.state import State, boot_id
from almagent.watchers import DocumentWatcher, InterruptionWatcher, watch_changes

STOP_TIMEOUT = 4.5  # seconds from the signal to the exit, whatever hangs
LAST_WORDS = 2.0  # seconds to hand over statuses that wait when the agent stops

LONG_VALUE = 8  # characters; shorter values of the environment are words that logs are made of ...
SECRET_NAME = re.compile(r"pass|secret|token|key|pwd|cred", re.IGNORECASE)  # ... unless named so

log = structlog.get_logger(__name__)


class Outcome(Enum):
    STOPPED = 0
    FAILED = 1
    RELOAD = 2


class Agent:
    """Everything that runs, and what it is asked from outside."""

    def __init__(
        self, settings: Settings, redactor: Redactor, progress: Progress = no_progress
    ) -> None:
        self.settings = settings
        self._redactor = redactor
        self._progress = progress
        self._end = asyncio.Event()
        self._contact = asyncio.Event()
        self._outcome = Outcome.STOPPED
        self._lock = Lock(settings.runtime_dir / "almagent.lock")
        self._phase: Phase

    async def run(self, *, once: bool = False) -> Outcome:
        """Until a signal, or with `once` until converged or failed. Raises Refused: another one runs."""
        self._lock.acquire()
        try:
            await self._build()
            return await self._serve(once=once)
        finally:
            self._lock.release()

    # --- wiring ---

    async def _build(self) -> None:
        s = self.settings
        self._redactor.learn(s.api.client_secret)
        self.state = State(
            FileStore(s.state_dir / "state.json"),
            boot_id(),
            drain_on_rebalance=s.cloud.on_rebalance == "drain",
        )
        self.engine = DockerEngine(
            host=s.docker.host,
            stack_id=s.stack_id,
            flag=s.flag,
            user_id=s.user_id,
            state_dir=s.state_dir,
            log_driver=s.docker.log_driver,
            log_opts=s.docker.log_opts,
            min_free_bytes=s.docker.min_free_bytes,
            keep_images=s.docker.keep_images,
        )
        source = GitSourceAdapter(
            state_dir=s.state_dir,
            runtime_dir=s.runtime_dir,
            known_hosts_file=s.git.known_hosts_file,
            timeout=s.git.timeout,
            keep_releases=s.deploy.keep_releases,
        )
        self.router = await self._choose_router()
        self.metadata, instance_id = await self._detect_cloud()
        self.api = AlmApi(
            url=s.api.url,
            client_id=s.api.client_id,
            client_secret=s.api.client_secret,
            stack_id=s.stack_id,
            flag=s.flag,
            agent_id=agent_id(s.state_dir, instance_id),
            instance_id=instance_id,
            timeout=s.api.timeout,
            ca_file=str(s.api.ca_file or ""),
            user_agent=f"almagent/{__version__}",
        )
        self._phase = self._phase_of("documents")
        self.reporter = Reporter(
            self.state.outbox, self.api, self.state.save, self._phase_of("reports")
        )
        preparer = Preparer(self.engine, source, self._wake, self._progress)
        self.reconciler = Reconciler(
            engine=self.engine,
            router=self.router,
            sockets=sockets,
            preparer=preparer,
            executor=Executor(
                engine=self.engine,
                source=source,
                router=self.router,
                preparer=preparer,
                durable=self.state,
            ),
            durable=self.state,
            policy=self._policy(),
            offer=self.offer,
        )
        self.documents = DocumentWatcher(
            flag=s.flag,
            control_plane=self.api,
            phase=self._phase,
            reconciler=self.reconciler,
            offer=self.offer,
            learn=self._learn,
        )

    def _phase_of(self, what: str) -> Phase:
        """Moments of its own for each kind of call, so that they do not add up to a peak."""
        key = f"{self.api.agent_id}/{what}"
        return Phase(key, self.settings.api.poll_interval, random.random)

    async def _choose_router(self) -> nft.NftRouter | None:
        """None: ports are published by Docker. Raises Refused: switch is demanded and impossible."""
        s = self.settings
        if s.deploy.strategy == "recreate":
            return None
        reason = await nft.supported()
        if reason is None:
            return nft.NftRouter(
                table=table_name(s.stack_id, s.flag), bridge=lambda: self.engine.bridge_name
            )
        if s.deploy.strategy == "switch":
            raise Refused(f"cannot use deploy.strategy switch: {reason}")
        log.warning("strategy.recreate", reason=reason)
        return None

    def _policy(self) -> Policy:
        deploy = self.settings.deploy
        return Policy(
            strategy=Strategy.SWITCH if self.router else Strategy.RECREATE,
            ready_timeout=deploy.ready_timeout,
            drain_timeout=deploy.drain_timeout,
            stop_timeout=deploy.stop_timeout,
            bake_time=deploy.bake_time,
        )

    async def _detect_cloud(self) -> tuple[Metadata | None, str]:
        """The cloud, and this instance's id in it, "" if unknown. Bounded: an instance must serve soon."""
        cloud = self.settings.cloud
        found = await clouds.detect(cloud.provider, cloud.endpoint)
        if found is None:
            return None, ""
        try:
            return found, await found.instance_id()
        except PortError as exc:
            log.warning("metadata.no_instance_id", cloud=found.name, reason=str(exc))
            return found, ""

    # --- what flows between the parts ---

    def offer(self, statuses: Sequence[Status]) -> None:
        """Texts of containers, registries and git end up in messages: secrets are taken out here."""
        self.reporter.offer([self._scrubbed(status) for status in statuses])

    def _scrubbed(self, status: Status) -> Status:
        if isinstance(status, AgentStatus) and status.message:
            return AgentStatus(status.word, self._redactor.scrub(status.message))
        return status

    def _wake(self) -> None:
        self.reconciler.wake()

    def _learn(self, spec: Spec) -> None:
        for name, value in spec.environment.items():
            if len(value.reveal()) >= LONG_VALUE or SECRET_NAME.search(name):
                self._redactor.learn(value)
        source, registry = spec.source, spec.registry
        for secret in (
            source and source.username,
            source and source.password,
            source and source.private_key,
            registry and registry.password,
        ):
            if secret:
                self._redactor.learn(secret)

    # --- life ---

    async def _serve(self, *, once: bool) -> Outcome:
        loops = self._loops()
        if once:
            loops["once"] = self._until_converged
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(_endless(name, loop), name=name)
                    for name, loop in loops.items()
                ]
                await self._end.wait()
                for task in tasks:
                    task.cancel()
        finally:
            await self.reporter.flush(time.monotonic() + LAST_WORDS)
            await self._close()
        return self._outcome

    def _loops(self) -> dict[str, Callable[[], Awaitable[None]]]:
        loops: dict[str, Callable[[], Awaitable[None]]] = {
            "register and poll": self._register_and_poll,
            "reconcile": self.reconciler.run,
            "report": self._report,
            "watch containers": lambda: watch_changes(
                "containers", self.engine.changes, self.reconciler
            ),
        }
        router = self.router
        if router is not None:
            loops["watch routes"] = lambda: watch_changes("routes", router.changes, self.reconciler)
        if self.metadata is not None:
            loops["watch interruptions"] = self._interruptions(self.metadata).run
        return loops

    def _interruptions(self, metadata: Metadata) -> InterruptionWatcher:
        cloud = self.settings.cloud
        return InterruptionWatcher(
            metadata=metadata,
            book=self.state.notices,
            interval=cloud.poll_interval,
            hook=cloud.pre_shutdown,
            reconciler=self.reconciler,
            offer=self.offer,
            chance=random.random,
        )

    async def _register_and_poll(self) -> None:
        """`starting` is the first thing the control plane hears, then it is asked for the document."""
        await asyncio.sleep(self._phase.first_wait(self.settings.api.start_splay))
        self._contact.set()
        self.reporter.offer([AgentStatus(AgentWord.STARTING)], force=True)
        await self.reporter.attempted.wait()
        await self.documents.run()

    async def _report(self) -> None:
        """Nothing is said before the first contact, which the whole fleet makes at different moments."""
        await self._contact.wait()
        await self.reporter.run()

    async def _until_converged(self) -> None:
        await self.documents.polled.wait()
        while True:
            self.reconciler.ticked.clear()
            reason = self._why_failed()
            if reason:
                log.error("once.failed", reason=reason)
                self.end(Outcome.FAILED)
            elif self.reconciler.settled:
                self.end(Outcome.STOPPED)
            await self.reconciler.ticked.wait()

    def _why_failed(self) -> str:
        if self.reconciler.problems:
            return "; ".join(self.reconciler.problems.values())
        failure = self.state.memory.failure
        desired = self.reconciler.desired
        if isinstance(desired, Run) and failure and failure.revision == desired.spec.revision:
            return failure.message
        return "" if isinstance(desired, Run) else f"nothing is defined for {self.settings.flag}"

    @property
    def ending(self) -> bool:
        return self._end.is_set()

    def end(self, outcome: Outcome) -> None:
        """Leave in good order; containers keep running and serving."""
        self._outcome = outcome
        self._end.set()

    async def _close(self) -> None:
        self.engine.close()
        with suppress(PortError):
            await self.api.close()


def table_name(stack_id: str, flag: str) -> str:
    """Of the nftables table; several agents may live on one host."""
    return f"almagent_{hashlib.sha256(f'{stack_id}/{flag}'.encode()).hexdigest()[:8]}"


async def _endless(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    """A loop that returns is a bug, and a bug ends the agent: the service manager starts it again."""
    await loop()
    raise RuntimeError(f"the loop {name!r} has ended")


async def run(
    settings: Settings, redactor: Redactor, *, once: bool, progress: Progress = no_progress
) -> Outcome:
    """The agent with its signals. Raises Refused when another agent holds the lock."""
    agent = Agent(settings, redactor, progress)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, agent)
    loop.add_signal_handler(signal.SIGHUP, agent.end, Outcome.RELOAD)
    return await agent.run(once=once)


def _stop(agent: Agent) -> None:
    """The first signal asks, the second one leaves at once, and nothing outlives the deadline."""
    if agent.ending:
        hard_exit(1)
    agent.end(Outcome.STOPPED)
    last_resort = threading.Timer(STOP_TIMEOUT, hard_exit, args=(0,))
    last_resort.daemon = True
    last_resort.start()
