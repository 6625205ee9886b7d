"""What the agent says of itself, from what its parts know."""

from __future__ import annotations

import dataclasses

import pytest

from almagent.core.memory import Memory
from almagent.core.model import (
    AgentStatus,
    AgentWord,
    Container,
    Desired,
    Keep,
    Leave,
    Observed,
    Run,
    Secret,
    Spec,
    State,
)
from almagent.core.notices import Departure
from almagent.core.outbox import Outbox
from almagent.core.planner import Policy, Strategy
from almagent.status import LastWords, Overview, Snapshot, Who
from almagent.watchers import LastPoll

CANARY = "canary-value"
SPEC = Spec("a" * 64, "app:1", environment={"TOKEN": Secret(CANARY)}, updated=7)
ACTIVE = Container(
    id="c" * 64,
    name="almagent-Web01-aaaaaaaa",
    revision=SPEC.revision,
    image_id="sha256:1",
    state=State.RUNNING,
    created=1.0,
    ports=(80, 443),
    up_for=60.0,
    image="app:1",
    image_digest="sha256:2",
    commit="d" * 40,
)


@dataclasses.dataclass
class Parts:
    """What `Overview` looks at, as far as it does."""

    desired: Desired = dataclasses.field(default_factory=Keep)
    seen: Observed | None = None
    seen_at: float = 1000.0
    gone: bool = False
    problems: dict[str, str] = dataclasses.field(default_factory=dict)
    memory: Memory = dataclasses.field(default_factory=Memory)
    outbox: Outbox = dataclasses.field(default_factory=Outbox)
    said: tuple[AgentStatus, ...] = ()
    poll: LastPoll = dataclasses.field(
        default_factory=lambda: LastPoll("2026-01-01T00:00:00", "ok")
    )
    departure: Departure | None = None

    def snapshot(self) -> Snapshot:
        words = LastWords()
        for status in self.said:
            words.hear(status)
        return Overview(
            who=Who("agent", "i-1", "stack", "Web01"),
            policy=Policy(Strategy.SWITCH),
            state=self,  # type: ignore[arg-type]
            reconciler=self,  # type: ignore[arg-type]
            last_poll=lambda: self.poll,
            last_words=words,
            departure=lambda: self.departure,
            scrub=lambda text: text.replace(CANARY, "***"),
            clock=lambda: 1005.0,
        ).snapshot()


def said(word: AgentWord, message: str = "") -> tuple[AgentStatus, ...]:
    return (AgentStatus(word, message),)


@pytest.mark.parametrize(
    ("parts", "phase", "doing"),
    [
        pytest.param(Parts(poll=LastPoll()), "starting", "making first contact", id="start"),
        pytest.param(Parts(), "uptodate", "nothing is defined to run", id="nothing defined"),
        pytest.param(
            Parts(Run(SPEC), said=said(AgentWord.INSTALLING)),
            "installing",
            "installing release aaaaaaaa (image app:1)",
            id="release",
        ),
        pytest.param(
            Parts(
                Run(SPEC),
                Observed((ACTIVE,)),
                memory=Memory(active=ACTIVE.id),
                said=said(AgentWord.UPTODATE),
            ),
            "uptodate",
            "serving release aaaaaaaa on ports 80, 443",
            id="serving",
        ),
        pytest.param(
            Parts(Run(SPEC), said=said(AgentWord.ERROR, f"no {CANARY}")),
            "error",
            "no ***",
            id="failed",
        ),
        pytest.param(
            Parts(problems={"poll": "cannot x"}, said=said(AgentWord.ERROR, "cannot x")),
            "error",
            "cannot x",
            id="trouble",
        ),
        pytest.param(
            Parts(Leave("spot"), problems={"tick": "no Docker"}),
            "draining",
            "leaving: spot; no Docker",
            id="leaving",
        ),
        pytest.param(
            Parts(Leave("asked"), gone=True),
            "stopped",
            "all containers are removed (asked); a restart deploys again",
            id="gone",
        ),
    ],
)
def test_phase_and_what_it_does(parts: Parts, phase: str, doing: str):
    snapshot = parts.snapshot()
    assert (snapshot.phase, snapshot.doing) == (phase, doing)


def test_containers_are_shown_by_their_part():
    candidate = dataclasses.replace(
        ACTIVE, id="e" * 64, revision="b" * 64, state=State.CREATED, up_for=0.0
    )
    spec = dataclasses.replace(SPEC, revision="b" * 64)
    seen = Observed((ACTIVE, candidate))
    snapshot = Parts(Run(spec), seen, memory=Memory(active=ACTIVE.id)).snapshot()
    assert snapshot.active is not None
    assert snapshot.candidate is not None
    assert snapshot.active.container_id == ACTIVE.id
    assert snapshot.active.since is not None
    assert (snapshot.candidate.container_id, snapshot.candidate.since) == (candidate.id, None)
    assert (snapshot.desired.revision, snapshot.desired.updated) == (spec.revision, 7)
    assert CANARY not in repr(snapshot)


def test_the_last_error_outlives_the_trouble_and_repeats_do_not_renew_it():
    words = LastWords()
    words.hear(AgentStatus(AgentWord.ERROR, "one"))
    first = words.error
    words.hear(AgentStatus(AgentWord.ERROR, "one"))
    assert words.error is first
    words.hear(AgentStatus(AgentWord.NOTICE, "maintenance"))
    words.hear(AgentStatus(AgentWord.UPTODATE))
    assert (words.word, words.error) == (AgentWord.UPTODATE, first)


def test_what_waits_and_what_is_coming():
    outbox = Outbox()
    outbox.offer(AgentStatus(AgentWord.STARTING), 1e9)
    snapshot = Parts(outbox=outbox, departure=Departure("terminate", 2e9)).snapshot()
    assert (snapshot.outbox.pending, snapshot.outbox.oldest) == (1, "2001-09-09T01:46:40+00:00")
    assert snapshot.interruption is not None
    assert snapshot.interruption.deadline == "2033-05-18T03:33:20+00:00"
