"""What is remembered, where no story of a host tells it already."""

from __future__ import annotations

from dataclasses import replace

import pytest

from almagent.core import actions as do
from almagent.core.memory import (
    Failure,
    Memory,
    Starts,
    Stop,
    Trial,
    failed,
    forget_gone,
    remember,
    start_refused,
    stayed,
)
from almagent.core.model import Container, Release, Spec, State
from tests.pure.host import App, release_of

OLD = Container("c0", "almagent-web-a", "a", "sha256:a", State.RUNNING, 0.0, incarnation="i0")
NEW = Container("c1", "almagent-web-b", "b", "sha256:b", State.RUNNING, 1.0, incarnation="i1")


def release(revision: str) -> Release:
    return release_of(Spec(revision, "image"), App())


SERVING = Memory("c0", incarnation="i0", release=release("a"))


def test_switch_makes_the_candidate_the_active_one_and_keeps_the_way_back():
    before = replace(
        SERVING,
        candidate_release=release("b"),
        trial=Trial("c1", 90.0),
        failure=Failure("b", 2, "late", 50.0),
    )
    assert remember(before, do.Switch(NEW, True, 130.0), 100.0) == Memory(
        active="c1",
        incarnation="i1",
        release=release("b"),
        previous="c0",
        previous_release=release("a"),
        switched_at=100.0,
        stops={"c0": Stop(100.0, 130.0)},
    )


@pytest.mark.parametrize("up_for", [3.0, 3600.0])
def test_refused_starts_count_however_long_it_ran_before(up_for: float):
    ended = replace(OLD, state=State.EXITED, up_for=up_for)
    memory = replace(SERVING, stops={"c0": Stop(90.0, 95.0)})
    for now in (100.0, 101.0, 103.0):
        memory = start_refused(memory, ended, now)
    assert memory == replace(SERVING, starts=Starts(3, 107.0, refused=True))
    assert memory.starts is not None
    assert memory.starts.in_vain(ended)
    started = remember(memory, do.Start(ended, True), 107.0)
    assert started.starts == Starts(4, 115.0)
    again = remember(started, do.Start(replace(ended, up_for=60.0), True), 200.0)
    assert again.starts == Starts(1, 201.0)


def test_switch_back_makes_the_previous_one_active_and_ends_the_bad_one():
    baking = remember(
        replace(SERVING, candidate_release=release("b")), do.Switch(NEW, True, 130.0), 100.0
    )
    back = remember(baking, do.Revert(NEW, OLD, "it ended", 135.0), 105.0, " (exit code 3)")
    assert back == Memory(
        active="c0",
        incarnation="i0",
        release=release("a"),
        stops={"c1": Stop(105.0, 135.0)},
        failure=Failure("b", 1, "it ended (exit code 3)", None),
    )


@pytest.mark.parametrize(
    ("candidate", "active", "kept"),
    [
        (release("b"), release("a"), release("b")),
        (None, release("a"), None),  # killed after it was made and before that was remembered
        (release("c"), release("a"), None),
        (None, release("b"), release("b")),  # it replaces one that was lost
    ],
    ids=["noted", "not noted", "another one noted", "replacement"],
)
def test_active_container_is_never_taken_for_one_of_another_release(candidate, active, kept):
    before = replace(SERVING, candidate_release=candidate, release=active)
    assert remember(before, do.Switch(NEW, True, 130.0), 100.0).release == kept


def test_retired_container_that_was_active_again_gets_its_whole_drain_at_the_switch():
    before = replace(SERVING, stops={"c0": Stop(10.0, 20.0)})
    after = remember(before, do.Switch(NEW, True, 130.0), 100.0)
    assert after.stops == {"c0": Stop(100.0, 130.0)}


def test_leaving_that_was_cut_short_begins_anew_the_next_time():
    retired = replace(
        SERVING, stops={"c0": Stop(10.0, 20.0), "c9": Stop(5.0, 15.0)}, hook_done=True
    )
    assert stayed(retired) == replace(SERVING, stops={"c9": Stop(5.0, 15.0)})


def test_stop_signal_that_was_sent_is_not_forgotten_when_the_agent_stays():
    ending = replace(SERVING, stops={"c0": Stop(10.0, 20.0, 12.0)})
    assert stayed(ending) == ending


def test_stop_signal_that_was_sent_is_not_forgotten_at_the_switch():
    before = replace(SERVING, stops={"c0": Stop(95.0, 95.0, 95.0)})
    after = remember(before, do.Switch(NEW, True, 130.0), 100.0)
    assert after.stops["c0"].term_at == 95.0


@pytest.mark.parametrize(
    ("count", "wait", "pause"),
    [
        (1, 0.0, 10.0),
        (2, 0.0, 20.0),
        (5, 0.0, 160.0),
        (6, 0.0, 300.0),
        (9, 0.0, 300.0),
        (1, 45.0, 45.0),
    ],
)
def test_failures_in_a_row_wait_longer(count, wait, pause):
    memory = SERVING
    for _ in range(count):
        memory = failed(memory, "b", "late", 100.0, wait)
    assert memory.failure == Failure("b", count, "late", 100.0 + pause)


def test_failure_of_another_release_counts_anew():
    memory = failed(failed(SERVING, "b", "late", 100.0), "c", "late", 100.0)
    assert memory.failure == Failure("c", 1, "late", 110.0)


def test_containers_that_are_gone_are_forgotten():
    memory = replace(SERVING, stops={"c8": Stop(0.0, 0.0), "c9": Stop(0.0, 0.0)})
    assert forget_gone(memory, {"c0", "c9"}).stops == {"c9": Stop(0.0, 0.0)}
    assert forget_gone(memory, {"c8", "c9"}) is memory


def test_removed_container_leaves_no_trace():
    memory = replace(
        SERVING,
        previous="c1",
        previous_release=release("b"),
        trial=Trial("c1", 0.0),
        stops={"c1": Stop(0.0, 0.0)},
    )
    assert remember(memory, do.Remove(NEW), 100.0) == SERVING


@pytest.mark.parametrize(
    ("candidate", "kept"), [(release("b"), release("b")), (release("a"), None), (None, None)]
)
def test_adopted_container_is_known_again_if_what_it_was_made_from_was_noted(candidate, kept):
    before = Memory(candidate_release=candidate, trial=Trial("c1", 0.0))
    assert remember(before, do.Adopt(NEW), 100.0) == Memory(
        "c1", incarnation="i1", release=kept, candidate_release=candidate
    )
