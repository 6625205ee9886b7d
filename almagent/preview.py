"""What `run` would do now, by the same code: document, observation, planner. Nothing is changed.

It needs no lock and writes nothing, so it works beside a running daemon; what only that daemon knows (a
preparation under way) it does not see.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NoReturn

from almagent.adapters import sockets
from almagent.adapters.engine import DockerEngine
from almagent.adapters.router import unsupported_it_seems
from almagent.adapters.store import peek
from almagent.core.cast import Policy, failure_of, is_right
from almagent.core.document import parse
from almagent.core.explanation import Explanation, Look, explain
from almagent.core.model import GitSource, Leave, Run
from almagent.core.secrecy import secrets_of
from almagent.executor import Executor
from almagent.ports import Progress, Refused, Router, no_progress
from almagent.preparer import Preparer
from almagent.reconciler import Reconciler
from almagent.redaction import Redactor
from almagent.settings import Settings
from almagent.state import State
from almagent.wiring import choose_strategy, make_api, make_engine, make_state, policy


async def ask_document(settings: Settings) -> bytes:
    """Raises PortError."""
    api = make_api(settings, brief=True)
    try:
        return await api.fetch_document() or b""
    finally:
        await api.close()


async def preview(settings: Settings, document: bytes, redactor: Redactor) -> Explanation:
    """Raises DocumentError, PortError."""
    state = make_state(settings, _Frozen(peek(settings.state_dir / "state.json")))
    spec = parse(document, state.specs.values())
    for known in (*state.specs.values(), *([spec] if spec else [])):
        redactor.learn(*secrets_of(known))
    engine = make_engine(settings)
    try:
        strategy, router = await choose_strategy(settings, engine, unsupported_it_seems)
        rules = policy(settings, strategy)
        reconciler = _reconciler(engine, router, state, rules)
        departure = state.notices.departure()
        if departure is not None:
            reconciler.leave(Leave(departure.reason))
        elif spec is None:
            reconciler.fall_back()
        else:
            reconciler.run_spec(spec)
        seen, todo = await reconciler.think()
    finally:
        engine.close()
    memory, desired = state.memory, reconciler.desired
    active = next((c for c in seen.containers if c.id == memory.active), None)
    wanted = desired.spec if isinstance(desired, Run) else None
    return explain(
        Look(
            flag=settings.flag,
            defined=spec is not None,
            leaving=desired.reason if isinstance(desired, Leave) else "",
            wanted=wanted,
            active=active,
            old=state.specs.get(active.revision) if active else None,
            right=wanted is not None and is_right(active, wanted, rules),
            failure=failure_of(wanted, memory) if wanted else None,
            todo=todo,
            now=reconciler.seen_at,
            scrub=redactor.scrub,
        )
    )


def _reconciler(
    engine: DockerEngine, router: Router | None, state: State, rules: Policy
) -> Reconciler:
    """The daemon's own, with nothing to act by: it is only asked to think."""
    source = _NoSource()
    preparer = Preparer(engine, source, lambda: None)
    return Reconciler(
        engine=engine,
        router=router,
        sockets=sockets,
        preparer=preparer,
        executor=Executor(
            engine=engine,
            source=source,
            router=router,
            preparer=preparer,
            durable=state,
            scrub=str,
        ),
        durable=state,
        policy=rules,
        offer=lambda _statuses: None,
    )


class _Frozen:
    """A Store that keeps what was read and takes nothing."""

    def __init__(self, state: dict[str, object]) -> None:
        self._state = state

    def load(self) -> dict[str, object]:
        return self._state

    def save(self, _state: dict[str, object]) -> bool:
        return False


class _NoSource:
    """The real one cleans up in RUNTIME_DIR, which is the daemon's."""

    async def checkout(self, _source: GitSource, _progress: Progress = no_progress) -> NoReturn:
        raise Refused("cannot fetch: this is a preview")

    async def collect(self, _keep: Collection[str]) -> None:
        raise Refused("cannot remove anything: this is a preview")
