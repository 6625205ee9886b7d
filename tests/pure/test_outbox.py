"""The outbox: order, repeats, bounds, and what comes back from a state file."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from almagent.core.model import AgentStatus, AgentWord, ContainerStatus, ContainerWord, Status
from almagent.core.outbox import MAX_BYTES, MAX_ENTRIES, MAX_SUBJECTS, Outbox

STARTING = AgentStatus(AgentWord.STARTING)
UPTODATE = AgentStatus(AgentWord.UPTODATE)
NOTICE = AgentStatus(AgentWord.NOTICE, "rebalance")
SPOT = AgentStatus(AgentWord.SPOT_TERMINATE, "terminate at 12:00")


def error(message: str) -> AgentStatus:
    return AgentStatus(AgentWord.ERROR, message)


def running(container_id: str) -> ContainerStatus:
    return ContainerStatus(container_id, ContainerWord.RUNNING)


def restarting(container_id: str) -> ContainerStatus:
    return ContainerStatus(container_id, ContainerWord.RESTARTING)


def terminated(container_id: str) -> ContainerStatus:
    return ContainerStatus(container_id, ContainerWord.TERMINATED)


def filled(*statuses: Status) -> Outbox:
    outbox = Outbox()
    for at, status in enumerate(statuses):
        outbox.offer(status, float(at))
    return outbox


def drained(outbox: Outbox) -> list[Status]:
    sent = []
    while (entry := outbox.head()) is not None:
        sent.append(entry.status)
        outbox.acknowledge(entry.seq)
    return sent


def reloaded(outbox: Outbox) -> Outbox:
    return Outbox.from_dict(json.loads(json.dumps(outbox.to_dict())))


@pytest.mark.parametrize(
    ("offered", "sent"),
    [
        pytest.param([UPTODATE, UPTODATE], [UPTODATE], id="a repeat"),
        pytest.param([UPTODATE, error("a"), UPTODATE], None, id="a change and back"),
        pytest.param([error("a"), error("b")], None, id="another message"),
        pytest.param([UPTODATE, NOTICE, UPTODATE, NOTICE], [UPTODATE, NOTICE], id="notice beside"),
        pytest.param(
            [running("a"), running("b"), running("a")],
            [running("a"), running("b")],
            id="two containers",
        ),
        pytest.param(
            [running("a"), ContainerStatus("a", "complete", own=False), running("a")],
            [running("a"), ContainerStatus("a", "complete", own=False)],
            id="the image's own word beside ours",
        ),
    ],
)
def test_repeats_of_a_subject_are_left_out(offered: list[Status], sent: list[Status] | None):
    outbox = Outbox()
    added = [status for status in offered if outbox.offer(status, 0.0)]
    assert drained(outbox) == added == (offered if sent is None else sent)


def test_what_was_acknowledged_is_still_a_repeat():
    outbox = filled(UPTODATE)
    drained(outbox)
    assert not outbox.offer(UPTODATE, 1.0)
    assert not reloaded(outbox).offer(UPTODATE, 1.0)


def test_registration_is_forced():
    outbox = filled(STARTING)
    drained(outbox)
    assert outbox.offer(STARTING, 1.0, force=True)
    assert outbox.offer(UPTODATE, 2.0)
    assert drained(outbox) == [STARTING, UPTODATE]


def test_registrations_that_nobody_heard_become_one():
    outbox = filled(UPTODATE)
    for _ in range(3):
        outbox = reloaded(outbox)
        outbox.offer(STARTING, 1.0, force=True)
    assert drained(outbox) == [UPTODATE, STARTING]


def test_the_end_of_the_instance_overtakes_all():
    outbox = filled(STARTING, UPTODATE, SPOT, NOTICE)
    assert drained(outbox) == [SPOT, STARTING, UPTODATE, NOTICE]


def test_a_status_that_is_never_taken_blocks_nothing():
    outbox = filled(STARTING, UPTODATE)
    first = outbox.head()
    assert first is not None
    outbox.drop(first.seq)
    outbox.drop(first.seq)  # a second answer for the same one changes nothing
    assert drained(outbox) == [UPTODATE]


def test_it_tells_how_many_wait_and_since_when():
    outbox = Outbox()
    assert (len(outbox), outbox.oldest) == (0, None)
    outbox.offer(STARTING, 7.0)
    outbox.offer(UPTODATE, 9.0)
    assert (len(outbox), outbox.oldest) == (2, 7.0)


def test_containers_stay_open_until_terminated():
    outbox = filled(running("a"), running("b"), terminated("a"))
    drained(outbox)
    assert reloaded(outbox).open_containers() == ["b"]
    assert not outbox.offer(terminated("a"), 9.0)


def test_flapping_is_lost_first_and_single_transitions_last():
    outbox = Outbox()
    outbox.offer(STARTING, 0.0)
    outbox.offer(error("only once"), 1.0)
    for n in range(MAX_ENTRIES // 2 + 100):
        outbox.offer(running("flapping"), 2.0 + n)
        outbox.offer(restarting("flapping"), 2.5 + n)
    outbox.offer(UPTODATE, 5000.0)
    assert len(outbox) == MAX_ENTRIES
    assert outbox.dropped == 203
    sent = drained(outbox)
    assert sent[:2] == [STARTING, error("only once")]
    assert sent[-3:-1] == [restarting("flapping"), UPTODATE]
    lost = "203 older statuses were dropped: too many waited"
    assert sent[-1] == AgentStatus(AgentWord.NOTICE, lost)
    assert all(a != b for a, b in itertools.pairwise(sent))
    assert outbox.dropped == 0
    assert outbox.head() is None


def test_without_repeats_superseded_statuses_go_first():
    outbox = filled(STARTING, NOTICE, running("c"), *(error(str(n)) for n in range(MAX_ENTRIES)))
    sent = drained(outbox)
    assert sent[:4] == [STARTING, NOTICE, running("c"), error("3")]
    assert sent[-2] == error(str(MAX_ENTRIES - 1))


def test_with_nothing_superseded_the_oldest_go_but_not_an_end_of_the_instance():
    outbox = filled(STARTING, SPOT, *(running(str(n)) for n in range(MAX_ENTRIES)))
    kept = drained(outbox)
    assert kept[:3] == [SPOT, STARTING, running("2")]


def test_the_one_on_its_way_is_never_lost_to_the_bounds():
    outbox = filled(running("c"))
    sending = outbox.head()
    assert sending is not None
    for n in range(MAX_ENTRIES // 2 + 1):
        outbox.offer(restarting("c"), n)
        outbox.offer(running("c"), n)
    outbox.acknowledge(sending.seq)
    assert len(outbox) == MAX_ENTRIES - 1


def test_it_is_bounded_in_bytes():
    outbox = filled(*(error(f"{n}" + "\N{SNOWMAN}" * 600) for n in range(MAX_ENTRIES)))
    assert outbox.dropped > 0
    assert len(json.dumps(outbox.to_dict()["entries"])) < MAX_BYTES * 1.01
    again = reloaded(outbox)
    assert len(again) == len(outbox)
    assert again.offer(error("x"), 0.0)


def test_the_memory_is_bounded_and_forgets_ended_containers_first():
    outbox = filled(UPTODATE, NOTICE, running("keep"))
    for n in range(2 * MAX_SUBJECTS):
        outbox.offer(running(f"{n}"), 0.0)
        outbox.offer(terminated(f"{n}"), 0.0)
    assert not outbox.offer(UPTODATE, 1.0)
    assert not outbox.offer(NOTICE, 1.0)
    assert outbox.open_containers() == ["keep"]
    last = outbox.to_dict()["last"]
    assert isinstance(last, list)
    assert len(last) == MAX_SUBJECTS


def test_it_comes_back_from_the_state_file():
    outbox = filled(STARTING, running("a"), SPOT, ContainerStatus("a", "complete", own=False))
    outbox.dropped = 4
    again = reloaded(outbox)
    assert again.to_dict() == outbox.to_dict()
    assert drained(again) == drained(outbox)


@pytest.mark.parametrize(
    "damage",
    [
        {"entries": "x"},
        {"entries": [None, 1, {"at": 1}, {"at": "1", "agent": "error", "message": ""}]},
        {"entries": [{"at": float("inf"), "agent": "error", "message": ""}]},
        {"entries": [{"at": 1, "agent": "no such word", "message": ""}]},
        {"entries": [{"at": 1, "agent": "error"}], "last": {"a": 1}, "dropped": "many"},
        {"entries": [{"at": 1, "container": 5, "word": "running", "own": True}], "dropped": -1},
    ],
)
def test_damaged_parts_are_left_out(damage: dict[str, object]):
    good = filled(STARTING, running("a")).to_dict()
    entries = [*_list(damage.get("entries")), *_list(good["entries"])]
    outbox = Outbox.from_dict({**good, **damage, "entries": entries})
    assert drained(outbox) == [STARTING, running("a")]
    assert len(Outbox.from_dict(damage)) == 0


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


_statuses = st.one_of(
    st.builds(AgentStatus, st.sampled_from(AgentWord), st.sampled_from(["", "m", "n"])),
    st.builds(
        ContainerStatus, st.sampled_from("abc"), st.sampled_from(ContainerWord), st.booleans()
    ),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(_statuses, st.sampled_from(["send", "restart"])), max_size=60))
def test_every_change_arrives_once_and_in_order_across_restarts(steps: list[Status | str]):
    outbox, added, sent = Outbox(), [], []
    for step in steps:
        if step == "restart":
            outbox = reloaded(outbox)
        elif step == "send":
            entry = outbox.head()
            if entry is not None:
                sent.append(entry.status)
                outbox.acknowledge(entry.seq)
        elif not isinstance(step, str) and outbox.offer(step, 0.0):
            added.append(step)
    sent += drained(outbox)
    normal = [status for status in added if not _is_spot(status)]
    assert [status for status in sent if not _is_spot(status)] == normal
    assert Counter(sent) == Counter(added)


def _is_spot(status: Status) -> bool:
    return isinstance(status, AgentStatus) and status.word is AgentWord.SPOT_TERMINATE
