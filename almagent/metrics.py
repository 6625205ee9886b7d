"""What the agent counts, for Prometheus. Names and units by its conventions; a registry of our own.

Counters and durations are told as things happen; what is a state (phase, outbox, interruption) is
read from the status when somebody asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from almagent.adapters.calls import OnCall
from almagent.core import actions as do
from almagent.health import Health
from almagent.status import Phase, Snapshot

CALL_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0)
PHASE_SECONDS = (0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 180.0, 600.0)


class Metrics:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the text, and nobody asked for them
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # resident memory, CPU, open files, start time
        self._stopwatch = _Stopwatch(clock)
        self._up = Gauge("almagent_up", "1 while the agent runs.", registry=registry)
        self._up.set(1)
        self._info = Info("almagent", "Which agent this is.", registry=registry)
        self._polls = Counter(
            "almagent_polls", "Polls for the document, by result.", ["result"], registry=registry
        )
        self._failures = Counter(
            "almagent_failures",
            "What failed, by kind (poll, report, metadata, docker, release).",
            ["kind"],
            registry=registry,
        )
        self._requests = Counter(
            "almagent_requests",
            "Requests to neighbours (api, metadata, docker), by name and outcome.",
            ["neighbour", "request", "outcome"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "almagent_request_duration_seconds",
            "How long requests to neighbours took.",
            ["neighbour"],
            buckets=CALL_SECONDS,
            registry=registry,
        )
        self._releases = Counter(
            "almagent_releases", "Releases, by how they ended.", ["outcome"], registry=registry
        )
        self._release_seconds = Histogram(
            "almagent_release_duration_seconds",
            "How long the phases of releases took: prepare, ready, drain, stop.",
            ["phase"],
            buckets=PHASE_SECONDS,
            registry=registry,
        )
        self._success = Gauge(
            "almagent_last_success_timestamp_seconds",
            "When something last went well (poll, report, api, metadata, docker).",
            ["what"],
            registry=registry,
        )
        self._phase = Gauge(
            "almagent_phase", "1 for the present one.", ["phase"], registry=registry
        )
        self._loop = Gauge(
            "almagent_loop_alive", "1 while the loop makes progress.", ["loop"], registry=registry
        )
        self._outbox = Gauge(
            "almagent_outbox_depth", "Statuses not yet acknowledged.", registry=registry
        )
        self._interruption = Gauge(
            "almagent_interruption", "1 when this instance is going away.", registry=registry
        )

        for counter, values in (
            (self._polls, ("changed", "unchanged", "unavailable", "refused")),
            (self._failures, ("poll", "report", "metadata", "docker", "release")),
            (self._releases, ("active", "failed", "switched_back")),
        ):
            for value in values:
                counter.labels(value)  # from the start: increase() misses what begins with 1

    # --- told as it happens ---

    def calls_to(self, neighbour: str) -> OnCall:
        """The hook for one neighbour's adapter.

        What fails of the API is counted as a poll or report. "404" of metadata means: no such notice.
        """
        fine = {"ok", "304", "404"} if neighbour == "metadata" else {"ok", "304"}

        def count(request: str, outcome: str, seconds: float) -> None:
            self._requests.labels(neighbour, request, outcome).inc()
            self._request_seconds.labels(neighbour).observe(seconds)
            if outcome.startswith("2") or outcome in fine:
                self._success.labels(neighbour).set_to_current_time()
            elif neighbour != "api":
                self._failures.labels(neighbour).inc()

        return count

    def polled(self, result: str) -> None:
        """`result`: changed, unchanged, or a kind of failure (unavailable, refused)."""
        self._polls.labels(result).inc()
        if result in {"changed", "unchanged"}:
            self._success.labels("poll").set_to_current_time()
        else:
            self._failures.labels("poll").inc()

    def reported(self, outcome: str) -> None:
        """`outcome`: acknowledged, refused or unavailable."""
        if outcome == "acknowledged":
            self._success.labels("report").set_to_current_time()
        else:
            self._failures.labels("report").inc()

    def acted(self, action: do.Action, ok: bool) -> None:
        outcome = _outcome(action, ok=ok)
        if outcome:
            self._releases.labels(outcome).inc()
        if outcome == "failed":
            self._failures.labels("release").inc()
        for phase, seconds in self._stopwatch.passed(action, ok=ok):
            self._release_seconds.labels(phase).observe(seconds)

    # --- read when somebody asks ---

    def render(self, snapshot: Snapshot, health: Health) -> bytes:
        self._info.info(
            {"version": snapshot.version, "flag": snapshot.flag, "strategy": snapshot.strategy}
        )
        for phase in Phase:
            self._phase.labels(phase.value).set(phase is snapshot.phase)
        for name, alive in health.loops().items():
            self._loop.labels(name).set(alive)
        self._outbox.set(snapshot.outbox.pending)
        self._interruption.set(snapshot.interruption is not None)
        return generate_latest(self.registry)


def _outcome(action: do.Action, *, ok: bool) -> str:
    """How a release ended with this action; "": it did not."""
    match action:
        case do.Switch() if ok:
            return "active"
        case do.Discard() | do.Reject():
            return "failed"
        case do.Create() | do.Start(active=False) if not ok:
            return "failed"
        case do.Revert():
            return "switched_back"
        case _:
            return ""


class _Stopwatch:
    """The phases of a release, from the actions that begin and end them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: dict[tuple[str, str], float] = {}  # phase and revision or container -> begin

    def passed(self, action: do.Action, *, ok: bool) -> Iterator[tuple[str, float]]:
        """The phases that end with this action, each with its seconds. `ok`: the release lives on."""
        match action:
            case do.Prepare(spec=spec):
                self._since.clear()  # the latest document counts; so nothing is kept for ever
                self._begin("prepare", spec.revision)
            case do.Reject(revision=revision):
                yield from self._end("prepare", revision)
            case do.Create(spec=spec):
                yield from self._end("prepare", spec.revision)
                if ok:
                    self._begin("ready", spec.revision)
            case do.Start(container=c, active=False) if not ok:
                yield from self._end("ready", c.revision)
            case do.Discard(container=c):
                yield from self._end("ready", c.revision)
            case do.Switch(container=c):
                yield from self._end("ready", c.revision)
                self._begin("drain", "")
            case do.Terminate(container=c):
                yield from self._end("drain", "")
                self._begin("stop", c.id)
            case do.Remove(container=c):
                yield from self._end("stop", c.id)
            case _:
                pass

    def _begin(self, phase: str, what: str) -> None:
        self._since[phase, what] = self._clock()

    def _end(self, phase: str, what: str) -> list[tuple[str, float]]:
        since = self._since.pop((phase, what), None)
        return [] if since is None else [(phase, self._clock() - since)]
