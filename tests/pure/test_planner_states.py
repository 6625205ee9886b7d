"""What the planner decides on one look at a container in any state, and what counts as ready."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from almagent.core.memory import Failure, Memory, Stop
from almagent.core.model import Container, Health, Observed, Run, Spec, State
from almagent.core.planner import Policy, Strategy, is_ready, plan, waiting_for
from tests.pure.diary import RECREATE, SWITCH

# --- readiness --------------------------------------------------------------------------------------


def candidate(**facts: Any) -> Container:
    basis = Container("c1", "almagent-web-b", "b", "sha256:b", State.RUNNING, 1.0, ports=(80,))
    return replace(basis, **facts)


@pytest.mark.parametrize(
    ("facts", "ready"),
    [
        ({"health": Health.HEALTHY}, True),
        ({"health": Health.STARTING, "status_word": "complete", "listening": True}, False),
        ({"health": Health.UNHEALTHY, "status_word": "complete", "listening": True}, False),
        ({"health": Health.HEALTHY, "status_word": "installing", "listening": False}, True),
        ({"status_word": "complete"}, True),
        ({"status_word": "complete", "listening": False}, True),
        ({"status_word": "installing", "listening": True}, False),
        ({"status_word": "done", "listening": True}, False),
        ({"listening": True}, True),
        ({"listening": False, "up_for": 100.0}, False),
        ({"listening": None, "up_for": 100.0}, False),
        ({"ports": (), "up_for": 5.0}, True),
        ({"ports": (), "up_for": 4.9}, False),
        ({"state": State.PAUSED, "health": Health.HEALTHY}, False),
        ({"state": State.EXITED, "listening": True}, False),
        ({"state": State.RESTARTING, "status_word": "complete"}, False),
    ],
    ids=str,
)
def test_first_thing_a_candidate_shows_decides_whether_it_is_ready(facts, ready):
    assert is_ready(candidate(**facts)) is ready


@pytest.mark.parametrize(
    ("facts", "lacks"),
    [
        ({"health": Health.STARTING}, "its health check says starting"),
        ({"status_word": "installing"}, "its status file says installing"),
        ({"ports": (80, 443)}, "not every port accepts connections (80, 443)"),
        ({"ports": ()}, "it has not been up long enough"),
    ],
    ids=str,
)
def test_what_an_unready_candidate_lacks_is_told(facts, lacks):
    assert waiting_for(candidate(**facts)) == lacks


# --- one look ---------------------------------------------------------------------------------------


def look(
    memory: Memory,
    *containers: Container,
    desired: str = "a",
    strategy: Strategy = SWITCH,
    **seen: Any,
) -> list[str]:
    world = Observed(containers, **seen)
    todo = plan(Run(Spec(desired, "image")), world, memory, Policy(strategy), 100.0)
    assert todo.actions or todo.wake_at is None or todo.wake_at > 100.0
    return [type(action).__name__ for action in todo.actions]


ACTIVE = Container(
    "c0", "almagent-web-a", "a", "sha256:a", State.RUNNING, 0.0, address="ip", restarts=True
)


@pytest.mark.parametrize(
    ("active", "done"),
    [
        (ACTIVE, []),
        (replace(ACTIVE, state=State.EXITED), ["Start"]),
        (replace(ACTIVE, state=State.CREATED), ["Start"]),
        (replace(ACTIVE, state=State.PAUSED), ["Start"]),
        (replace(ACTIVE, state=State.DEAD), ["Remove"]),
        (replace(ACTIVE, state=State.RESTARTING), []),
        (replace(ACTIVE, state=State.REMOVING), []),
        (replace(ACTIVE, health=Health.HEALTHY), []),
        (replace(ACTIVE, health=Health.UNHEALTHY), ["Terminate"]),
    ],
    ids=lambda value: str(value.state) if isinstance(value, Container) else None,
)
def test_active_container_in_any_state(active, done):
    assert look(Memory("c0", swept="c0"), active, routes={}) == done


@pytest.mark.parametrize(
    ("state", "done"),
    [
        (State.CREATED, ["Start"]),
        (State.RUNNING, ["Watch"]),
        (State.PAUSED, ["Watch"]),
        (State.EXITED, ["Discard"]),
        (State.DEAD, ["Discard"]),
        (State.RESTARTING, ["Discard"]),
        (State.REMOVING, []),
    ],
)
def test_candidate_in_any_state(state, done):
    fresh = Container("c1", "almagent-web-b", "b", "sha256:b", state, 1.0)
    assert look(Memory("c0"), ACTIVE, fresh, desired="b", routes={}) == done


@pytest.mark.parametrize("state", [State.EXITED, State.CREATED, State.DEAD])
def test_stray_container_that_does_not_run_is_removed(state):
    stray = replace(ACTIVE, id="c9", revision="x", state=state)
    assert look(Memory("c0"), stray, ACTIVE, routes={}) == ["Remove"]


def test_stray_container_that_runs_is_drained_first():
    stray = replace(ACTIVE, id="c9", revision="x", connections=0)
    assert look(Memory("c0"), stray, ACTIVE, routes={}) == ["Retire"]
    begun = Memory("c0", stops={"c9": Stop(99.0, 130.0)})
    assert look(begun, stray, ACTIVE, routes={}) == ["Terminate"]


def test_container_that_has_begun_to_leave_never_becomes_a_candidate():
    leaving = replace(ACTIVE, id="c1", revision="b", state=State.EXITED)
    memory = Memory("c0", stops={"c1": Stop(0.0, 0.0, 50.0)})
    assert look(memory, ACTIVE, leaving, desired="b", routes={}) == ["Remove", "Prepare"]


def test_recreate_leaves_an_old_one_that_has_died_alone_when_there_is_a_candidate():
    old = replace(ACTIVE, state=State.EXITED, published=True)
    fresh = Container("c1", "almagent-web-b", "b", "sha256:b", State.CREATED, 1.0, published=True)
    assert look(Memory("c0"), old, fresh, desired="b", strategy=RECREATE) == ["Start"]


@pytest.mark.parametrize(
    ("stop", "up_for", "done"),
    [
        (Stop(60.0, 90.0), 80.0, []),
        (Stop(60.0, 90.0, 65.0), 80.0, ["Kill"]),
        (Stop(60.0, 90.0, 95.0), 80.0, []),
        (Stop(60.0, 90.0, 65.0), 30.0, []),
    ],
    ids=["retired", "long since told to end", "just told to end", "told to end in an earlier life"],
)
def test_active_container_that_had_begun_to_leave(stop, up_for, done):
    active = replace(ACTIVE, up_for=up_for)
    assert look(Memory("c0", stops={"c0": stop}), active, routes={}) == done


def test_container_of_a_release_that_was_switched_back_never_becomes_a_candidate():
    bad = replace(ACTIVE, id="c1", revision="b", state=State.EXITED)
    memory = Memory("c0", failure=Failure("b", 1, "it ended", None))
    assert look(memory, ACTIVE, bad, desired="b", routes={}) == ["Remove"]
