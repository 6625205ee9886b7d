"""The agent's parts, put together: who knows whom, and what flows between them. Nothing runs yet."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence

from almagent.adapters import sockets
from almagent.adapters.engine import DockerEngine
from almagent.adapters.metadata import Cloud
from almagent.adapters.router import NftRouter
from almagent.adapters.store import FileStore, agent_id
from almagent.core.cast import Strategy
from almagent.core.model import AgentStatus, Spec, Status
from almagent.core.notices import Departure
from almagent.core.secrecy import secrets_of
from almagent.executor import Executor
from almagent.health import Health
from almagent.metrics import Metrics
from almagent.pacing import Phase
from almagent.ports import Progress
from almagent.preparer import Preparer
from almagent.reconciler import Reconciler
from almagent.redaction import Redactor
from almagent.reporter import Reporter
from almagent.settings import Settings
from almagent.state import Place, State
from almagent.status import LastWords, Overview, Who
from almagent.watchers import DocumentWatcher, InterruptionWatcher, look_for_cloud
from almagent.wiring import (
    choose_strategy,
    detect_cloud,
    make_api,
    make_engine,
    make_source,
    make_state,
    policy,
)

TICK = 180.0  # seconds that one action may take: removing many images is the longest
HUNG = 60.0  # seconds after which a Docker engine that answers nothing at all is worth a restart


async def assemble(s: Settings, redactor: Redactor, progress: Progress) -> Parts:
    """Asks the kernel what it can and the cloud who we are. Raises Refused: switch is demanded and impossible."""
    redactor.learn(s.api.client_secret)
    metrics, health = Metrics(), Health()
    count, watch = metrics.calls_to("docker"), health.watch_calls("docker", HUNG)

    def docker_called(request: str, outcome: str, seconds: float) -> None:
        count(request, outcome, seconds)
        watch(request, outcome, seconds)

    engine = make_engine(s, docker_called)
    strategy, router = await choose_strategy(s, engine)
    state = make_state(s, FileStore(s.state_dir / "state.json"))
    cloud, instance_id = await detect_cloud(s, state.place, metrics.calls_to("metadata"))
    if cloud is not None:
        state.place = Place(cloud.name, instance_id)
    return Parts(
        s,
        redactor,
        progress,
        metrics=metrics,
        health=health,
        engine=engine,
        state=state,
        strategy=strategy,
        router=router,
        cloud=cloud,
        instance_id=instance_id,
    )


class Parts:
    def __init__(
        self,
        settings: Settings,
        redactor: Redactor,
        progress: Progress,
        *,
        metrics: Metrics,
        health: Health,
        engine: DockerEngine,
        state: State,
        strategy: Strategy,
        router: NftRouter | None,
        cloud: Cloud | None,
        instance_id: str,
    ) -> None:
        self._settings = s = settings
        self._redactor = redactor
        self.metrics, self.health = metrics, health
        self.engine, self.router = engine, router
        self.state = state
        for spec in state.specs.values():  # what runs may print them before the API is back
            self._learn(spec)
        self.anew = asyncio.Event()  # set when all is to begin as after a restart
        self.last_words = LastWords()
        self.api = make_api(
            s,
            agent_id=agent_id(s.state_dir, instance_id),
            instance_id=instance_id,
            on_call=metrics.calls_to("api"),
        )
        self.policy = policy(s, strategy)
        self.report_beat = health.register("report", s.api.timeout)
        self.reporter = Reporter(
            self.state.outbox,
            self.api,
            self.state.save,
            self._phase_of("reports"),
            count=metrics.reported,
            beat=self.report_beat,
        )
        self.reconciler = self._make_reconciler(progress)
        self.poll_beat = health.register("poll", s.api.timeout)
        self.documents_phase = self._phase_of("documents")
        self.documents = DocumentWatcher(
            flag=s.flag,
            control_plane=self.api,
            phase=self.documents_phase,
            reconciler=self.reconciler,
            offer=self.offer,
            known=self._known,
            learn=self._learn,
            count=metrics.polled,
            beat=self.poll_beat,
        )
        self.interruptions = None if cloud is None else self._watch_interruptions(cloud)
        self.overview = Overview(
            who=Who(self.api.agent_id, instance_id, s.stack_id, s.flag),
            policy=self.policy,
            state=self.state,
            reconciler=self.reconciler,
            last_poll=lambda: self.documents.last,
            last_words=self.last_words,
            departure=self._departure,
            scrub=redactor.scrub,
        )

    def _make_reconciler(self, progress: Progress) -> Reconciler:
        source = make_source(self._settings)
        preparer = Preparer(self.engine, source, self._wake, progress)
        executor = Executor(
            engine=self.engine,
            source=source,
            router=self.router,
            preparer=preparer,
            durable=self.state,
            scrub=self._redactor.scrub,
            acted=self.metrics.acted,
        )
        return Reconciler(
            engine=self.engine,
            router=self.router,
            sockets=sockets,
            preparer=preparer,
            executor=executor,
            durable=self.state,
            policy=self.policy,
            offer=self.offer,
            beat=self.health.register("reconcile", TICK),
        )

    def _watch_interruptions(self, cloud: Cloud) -> InterruptionWatcher:
        s = self._settings.cloud
        return InterruptionWatcher(
            metadata=cloud,
            book=self.state.notices,
            interval=s.poll_interval,
            hook=s.pre_shutdown,
            reconciler=self.reconciler,
            offer=self.offer,
            chance=random.random,
            begin_anew=self.anew.set,
            beat=self.health.register("watch interruptions", cloud.longest_call),
        )

    async def look_for_cloud(self) -> None:
        if self._settings.cloud.provider == "none" or self.api.instance_id:
            await asyncio.Event().wait()
        await look_for_cloud(self._find_cloud, self.anew.set)

    async def _find_cloud(self) -> bool:
        """Whether it tells by now who this instance is."""
        on_call = self.metrics.calls_to("metadata")
        _, instance_id = await detect_cloud(self._settings, self.state.place, on_call)
        return bool(instance_id)

    def _phase_of(self, what: str) -> Phase:
        """Moments of its own for each kind of call, so that they do not add up to a peak."""
        key = f"{self.api.agent_id}/{what}"
        return Phase(key, self._settings.api.poll_interval, random.random)

    # --- what flows between them ---

    def offer(self, statuses: Sequence[Status], *, force: bool = False) -> None:
        """Texts of containers, registries and git end up in messages: secrets are taken out here."""
        clean = [self._scrubbed(status) for status in statuses]
        for status in clean:
            self.last_words.hear(status)
        self.reporter.offer(clean, force=force)

    def _scrubbed(self, status: Status) -> Status:
        if isinstance(status, AgentStatus) and status.message:
            return AgentStatus(status.word, self._redactor.scrub(status.message))
        return status

    def _known(self) -> Iterable[Spec]:
        return self.state.specs.values()

    def _learn(self, spec: Spec) -> None:
        self._redactor.learn(*secrets_of(spec))

    def _wake(self) -> None:
        self.reconciler.wake()

    def _departure(self) -> Departure | None:
        return self.interruptions.departure if self.interruptions else None
