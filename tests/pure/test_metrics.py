"""What is counted, in the text that Prometheus reads."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from almagent.core import actions as do
from almagent.core.model import Container, GitSource, Release, Secret, Spec, State
from almagent.health import Health
from almagent.metrics import Metrics
from almagent.status import Interruption, Phase, Poll, Snapshot, Waiting, Wanted

CANARY = "canary-never-shown"
SPEC = Spec(
    revision="a" * 64,
    image="app:1",
    environment={"KEY": Secret(CANARY)},
    source=GitSource("https://example.com/x.git", password=Secret(CANARY)),
)
RELEASE = Release(SPEC.revision, "app:1", "sha256:1", "", "", "", "/code", "", (80,))


def container(name: str, revision: str = SPEC.revision) -> Container:
    return Container(name, name, revision, "sha256:1", State.RUNNING, 0.0)


def snapshot(**changes: object) -> Snapshot:
    fields: dict[str, object] = {
        "version": "1.2.3",
        "pid": 1,
        "agent_id": "id",
        "instance_id": "",
        "stack_id": "stack",
        "flag": "Web01",
        "phase": Phase.UPTODATE,
        "doing": "",
        "strategy": "switch",
        "desired": Wanted(None, None),
        "active": None,
        "candidate": None,
        "last_poll": Poll(None, "none yet"),
        "last_error": None,
        "outbox": Waiting(0, None),
        "interruption": None,
    }
    return Snapshot(**{**fields, **changes})  # type: ignore[arg-type]


def samples(metrics: Metrics, health: Health | None = None, **changes: object) -> dict[str, float]:
    """`name{label="value"}` -> value, as the client library's own parser reads it."""
    text = metrics.render(snapshot(**changes), health or Health()).decode()
    assert CANARY not in text
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_states_are_read_when_asked():
    health = Health()
    health.register("poll")
    gone = Interruption("terminate", None)
    found = samples(Metrics(), health, outbox=Waiting(7, None), interruption=gone)
    assert found["almagent_up"] == 1
    assert found["almagent_outbox_depth"] == 7
    assert found["almagent_interruption"] == 1
    assert found["almagent_phase{phase=uptodate}"] == 1
    assert sum(v for name, v in found.items() if name.startswith("almagent_phase")) == 1
    assert found["almagent_loop_alive{loop=poll}"] == 1
    assert found["almagent_info{flag=Web01,strategy=switch,version=1.2.3}"] == 1
    assert found["process_resident_memory_bytes"] > 1e6


def test_requests_to_neighbours_are_counted_by_name_and_outcome():
    metrics = Metrics()
    metrics.calls_to("api")("config", "200", 0.02)
    metrics.calls_to("api")("config", "503", 0.02)
    metrics.calls_to("docker")("list", "ok", 0.02)
    metrics.calls_to("metadata")("/latest/x", "404", 0.02)
    found = samples(metrics)
    assert found["almagent_requests_total{neighbour=api,outcome=200,request=config}"] == 1
    assert found["almagent_requests_total{neighbour=api,outcome=503,request=config}"] == 1
    assert found["almagent_request_duration_seconds_count{neighbour=api}"] == 2
    assert found["almagent_failures_total{kind=metadata}"] == 0  # 404 is the answer "no notice"
    assert found["almagent_last_success_timestamp_seconds{what=metadata}"] > 1e9
    assert found["almagent_last_success_timestamp_seconds{what=docker}"] > 1e9


@pytest.mark.parametrize("outcome", ["404", "503", "failed"])
def test_an_answer_that_there_is_no_such_thing_is_no_success_of_the_api(outcome: str):
    metrics = Metrics()
    metrics.calls_to("api")("config", outcome, 0.02)
    assert "almagent_last_success_timestamp_seconds{what=api}" not in samples(metrics)


@pytest.mark.parametrize("outcome", ["refused", "failed", "silent"])
def test_a_call_to_docker_that_fails_is_a_failure(outcome: str):
    metrics = Metrics()
    metrics.calls_to("docker")("pull", outcome, 0.02)
    assert samples(metrics)["almagent_failures_total{kind=docker}"] == 1


def test_a_call_to_the_api_fails_once():
    """As what it was for: the request alone, a login say, has a counter of its own."""
    metrics = Metrics()
    metrics.calls_to("api")("config", "503", 0.02)
    metrics.polled("unavailable")
    failures = {
        name: value
        for name, value in samples(metrics).items()
        if name.startswith("almagent_failures") and value
    }
    assert failures == {"almagent_failures_total{kind=poll}": 1}


def test_what_may_be_counted_is_there_from_the_start():
    """Prometheus' increase() takes the first value that it sees for no increase."""
    found = samples(Metrics())
    assert {
        name for name in found if re.match(r"almagent_(polls|failures|releases)_total", name)
    } == {
        *(
            f"almagent_polls_total{{result={r}}}"
            for r in ("changed", "unchanged", "unavailable", "refused")
        ),
        *(
            f"almagent_failures_total{{kind={k}}}"
            for k in ("poll", "report", "metadata", "docker", "release")
        ),
        *(f"almagent_releases_total{{outcome={o}}}" for o in ("active", "failed", "switched_back")),
    }


def test_polls_and_reports_are_counted_by_result():
    metrics = Metrics()
    for result in ("changed", "unchanged", "unavailable"):
        metrics.polled(result)
    metrics.reported("acknowledged")
    metrics.reported("unavailable")
    found = samples(metrics)
    assert found["almagent_polls_total{result=unavailable}"] == 1
    assert found["almagent_failures_total{kind=poll}"] == 1
    assert found["almagent_failures_total{kind=report}"] == 1
    assert found["almagent_last_success_timestamp_seconds{what=report}"] > 1e9


def test_the_phases_of_a_release_are_timed():
    now = 0.0
    metrics = Metrics(lambda: now)
    old, new = container("old", "b" * 64), container("new")
    for seconds, action in (
        (0.0, do.Prepare(SPEC)),
        (2.0, do.Create(SPEC, RELEASE, publish=False)),
        (0.5, do.Start(new, active=False)),
        (4.5, do.Switch(new, routed=True, drain_until=99.0)),
        (3.0, do.Terminate(old)),
        (1.0, do.Remove(old)),
    ):
        now += seconds
        metrics.acted(action, True)
    found = samples(metrics)
    timed = {
        phase: found[f"almagent_release_duration_seconds_sum{{phase={phase}}}"]
        for phase in ("prepare", "ready", "drain", "stop")
    }
    assert timed == {"prepare": 2.0, "ready": 5.0, "drain": 3.0, "stop": 1.0}
    assert found["almagent_releases_total{outcome=active}"] == 1


@pytest.mark.parametrize(
    ("end", "ok", "ready"),
    [
        pytest.param(do.Discard(container("new"), "late"), True, 5.0, id="not ready"),
        pytest.param(do.Start(container("new"), active=False), False, 5.0, id="not started"),
        pytest.param(do.Create(SPEC, RELEASE, publish=False), False, None, id="not created"),
        pytest.param(do.Reject(SPEC.revision, "no image"), True, None, id="not prepared"),
    ],
)
def test_the_phases_of_a_release_that_fails_are_timed_once(
    end: do.Action, ok: bool, ready: float | None
):
    now = 0.0
    metrics = Metrics(lambda: now)
    metrics.acted(do.Prepare(SPEC), True)
    now += 2.0
    if ready is not None:
        metrics.acted(do.Create(SPEC, RELEASE, publish=False), True)
        now += ready
    metrics.acted(end, ok)
    now += 9.0
    metrics.acted(do.Switch(container("new"), routed=True, drain_until=99.0), True)
    found = samples(metrics)
    assert found["almagent_release_duration_seconds_sum{phase=prepare}"] == 2.0
    assert found.get("almagent_release_duration_seconds_sum{phase=ready}") == ready


@pytest.mark.parametrize(
    ("action", "ok", "outcome"),
    [
        pytest.param(do.Discard(container("c"), "late"), True, "failed", id="not ready"),
        pytest.param(do.Reject("a" * 64, "no image"), True, "failed", id="not prepared"),
        pytest.param(do.Create(SPEC, RELEASE, publish=False), False, "failed", id="not created"),
        pytest.param(
            do.Revert(container("c"), container("d"), "died", 0.0), True, "switched_back", id="died"
        ),
    ],
)
def test_a_release_that_does_not_stay_is_counted(action: do.Action, ok: bool, outcome: str):
    metrics = Metrics()
    metrics.acted(action, ok)
    assert samples(metrics)[f"almagent_releases_total{{outcome={outcome}}}"] == 1
