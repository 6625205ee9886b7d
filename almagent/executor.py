"""One port call per action, and the memory of it. Every action may be repeated or interrupted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import assert_never

from almagent import failpoints
from almagent.core import actions as do
from almagent.core.memory import failed, remember, start_refused
from almagent.journal import logger
from almagent.ports import Engine, Evidence, PortError, Refused, Router, Source
from almagent.preparer import Preparer
from almagent.state import State

EVIDENCE = 300  # characters of a container's last log lines that go into a status
USELESS_AFTER = 3  # starts in a row that Docker refused; then the container is made anew

log = logger()


def unheard(_action: do.Action, _ok: bool) -> None:
    """For callers that count nothing."""


class Executor:
    def __init__(
        self,
        *,
        engine: Engine,
        source: Source,
        router: Router | None,
        preparer: Preparer,
        durable: State,
        scrub: Callable[[str], str],
        acted: Callable[[do.Action, bool], None] = unheard,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`scrub` takes secrets out; `acted` hears of each action and whether the release lives on."""
        self._engine = engine
        self._source = source
        self._router = router
        self._preparer = preparer
        self._durable = durable
        self._scrub = scrub
        self._acted = acted
        self._clock = clock
        self._tidying: asyncio.Task[None] | None = None

    async def execute(self, action: do.Action) -> bool:
        """False: the release failed on it, which is remembered; the rest of the plan is void.

        Raises PortError: a neighbour is in trouble; what was done before is remembered.
        """
        try:
            detail = await self._perform(action)
        except Refused as exc:
            if not await self._release_failed(action, str(exc)):
                raise
            self._acted(action, False)
            return False
        log.debug("action.done", action=type(action).__name__.lower())
        self._remember(action, detail)
        self._acted(action, True)
        failpoints.passed(type(action).__name__)
        return True

    def _remember(self, action: do.Action, detail: str = "") -> None:
        durable = self._durable
        durable.memory = remember(durable.memory, action, self._clock(), detail)
        durable.keep_specs(*([action.spec] if isinstance(action, do.Create) else []))
        durable.save()

    async def _perform(self, action: do.Action) -> str:  # noqa: C901, PLR0912 - one arm an action
        """The outcome's addition to a failure's message, "" for most."""
        match action:
            case do.Prepare(spec=spec):
                await self._preparer.start(spec)
            case do.Abandon():
                await self._preparer.cancel()
            case do.Create(spec=spec, release=release, publish=publish):
                await self._engine.create(spec, release, publish=publish)
            case do.Start(container=c):
                await self._engine.start(c.id)
            case do.Switch(container=c, routed=routed):
                if routed and self._router:
                    await self._router.point(c.targets)
                await self._preparer.cancel()
                log.info("release.active", container=c.id[:12], revision=c.revision[:8])
            case do.Route(targets=targets):
                if self._router:
                    await self._router.point(targets)
            case do.KeepRestarting(container=c):
                await self._engine.set_restart(c.id, always=True)
            case do.Discard(container=c, reason=reason):
                return await self._discard(c.id, reason)
            case do.Revert(container=c, to=to, reason=reason):
                log.warning("release.switched_back", revision=c.revision[:8], to=to.revision[:8])
                return self._tell(await self._evidence(c.id))
            case do.Terminate(container=c):
                await self._engine.terminate(c.id)
            case do.Kill(container=c):
                await self._engine.kill(c.id)
            case do.Remove(container=c):
                await self._engine.remove(c.id)
            case do.RunHook(container=c, path=path, limit=limit):
                await self._run_hook(c.id, path, limit)
            case do.Collect(images=images, paths=paths):
                await self._engine.collect(images)
                self._tidy_exports(paths)
            case do.Reject():
                await self._preparer.cancel()
            case do.Watch() | do.Adopt() | do.Retire():
                pass  # only to be remembered
            case _:
                assert_never(action)
        return ""

    async def _release_failed(self, action: do.Action, message: str) -> bool:
        """Whether the refusal means that the candidate is no good, and not that we are in trouble."""
        durable, now = self._durable, self._clock()
        match action:
            case do.Create(spec=spec):
                durable.memory = failed(durable.memory, spec.revision, message, now)
            case do.Start(container=c, active=False):
                await self._engine.remove(c.id)
                durable.memory = failed(durable.memory, c.revision, message, now)
            case do.Start(container=c):
                durable.memory = start_refused(durable.memory, c, now)
                if durable.memory.starts and durable.memory.starts.count >= USELESS_AFTER:
                    await self._engine.remove(c.id)
                return False
            case _:
                return False
        await self._preparer.cancel()
        return True

    async def _discard(self, container_id: str, reason: str) -> str:
        detail = self._tell(await self._evidence(container_id))
        log.warning("release.failed", container=container_id[:12], reason=reason + detail)
        await self._preparer.cancel()
        await self._engine.remove(container_id)
        return detail

    def _tidy_exports(self, keep: Sequence[str]) -> None:
        """Beside the tick: removing a large tree, or git's own tidying, may take a while."""
        if self._tidying is None or self._tidying.done():
            self._tidying = asyncio.create_task(self._collect_exports(keep), name="tidy exports")

    async def _collect_exports(self, keep: Sequence[str]) -> None:
        try:
            await self._source.collect(keep)
        except PortError as exc:
            log.warning("exports.not_tidied", reason=str(exc))

    async def close(self) -> None:
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.wait([self._tidying])

    async def _evidence(self, container_id: str) -> Evidence:
        """Missing evidence never stops what has to be done."""
        try:
            return await self._engine.evidence(container_id)
        except PortError:
            return Evidence(None, oom_killed=False, log_tail="")

    async def _run_hook(self, container_id: str, path: str, limit: float) -> None:
        try:
            output = await self._engine.run_hook(container_id, path, limit)
        except PortError as exc:
            log.warning("hook.failed", path=path, reason=str(exc))
            return
        if output:
            log.info("hook.ran", path=path, output=output)

    def _tell(self, evidence: Evidence) -> str:
        """Secrets are taken out of whole lines: of a part of one nobody would know what it is."""
        parts = []
        if evidence.oom_killed:
            parts.append("out of memory")
        if evidence.exit_code is not None:
            parts.append(f"exit code {evidence.exit_code}")
        text = f" ({', '.join(parts)})" if parts else ""
        lines = self._scrub(evidence.log_tail).split("\n")
        tail = " | ".join(lines)[-EVIDENCE:].strip(" |")
        return f"{text}; last log lines: {tail}" if tail else text
