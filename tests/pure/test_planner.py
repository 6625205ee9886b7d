"""What the planner decides, case by case: a release, from the document to the switch.

Times are those of the contract's defaults, in seconds, unless a case says otherwise.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from almagent.core import actions as do
from almagent.core.memory import remember
from almagent.core.model import Keep, Prepared
from almagent.core.planner import Policy
from tests.pure.diary import RECREATE, SWITCH, active_of, both, message_of, serving, write_down
from tests.pure.host import App
from tests.pure.world import World

# --- a release --------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("app", "after"),
    [
        (App(shows="health", ready_after=5.0), 5.0),
        (App(shows="word", ready_after=2.0), 2.0),
        (App(ready_after=3.0), 3.0),
        (App(ports=(), shows="time", ready_after=5.0), 5.0),
    ],
    ids=["health check", "status file", "ports", "time"],
)
def test_candidate_gets_the_traffic_as_soon_as_it_is_ready_and_not_earlier(strategy, app, after):
    world, diary = serving(App(ends_after=0.0), strategy)
    world.publish("b", app)
    world.run(60.0)
    [started], [switched] = diary.times(do.Start), diary.times(do.Switch)
    assert after - 1e-6 <= switched - started <= after + 0.3 + 1e-6


@both
def test_first_release_goes_through_every_step(strategy):
    world = World(strategy)
    diary = write_down(world)
    world.publish("a")
    world.run(60.0)
    steps = ["Prepare", "Create", "Start", "Watch", "Switch", "KeepRestarting", "Collect"]
    assert diary.names == steps
    assert diary.only(do.Create).publish is (strategy is RECREATE)
    assert diary.only(do.Switch).routed is (strategy is SWITCH)
    assert diary.only(do.Start).active is False


@both
def test_nothing_is_done_while_nothing_changes(strategy):
    world, diary = serving(strategy=strategy)
    world.publish("a")
    world.run(3600.0)
    assert diary.names == []


@both
def test_agent_that_is_started_again_does_nothing_to_what_is_right(strategy):
    world, diary = serving(strategy=strategy)
    world.restart_agent()
    world.run(600.0)
    assert diary.names == []


def test_new_release_takes_over_while_the_old_one_serves():
    world, diary = serving()
    world.publish("b")
    world.run(60.0)
    assert diary.names == [
        *("Prepare", "Create", "Start", "Watch", "Switch", "Terminate"),
        *("KeepRestarting", "Remove", "Collect"),
    ]
    assert active_of(world).revision == "b"


def test_release_with_other_ports_closes_the_old_ones():
    world, _ = serving(App(ports=(80, 443)))
    world.publish("b", App(ports=(8080,)))
    world.run(60.0)
    assert list(world.routes) == [8080]
    assert world.reachable


@both
def test_old_release_keeps_serving_when_new_one_never_gets_ready(strategy):
    world, diary = serving(strategy=strategy)
    old = active_of(world)
    world.publish("b", App(ready_after=None))
    world.run(190.0)
    assert active_of(world) is old
    assert world.serves(old)
    assert list(world.boxes) == [old.id]
    started, *_ = diary.times(do.Start)
    [discarded] = diary.times(do.Discard)
    assert discarded == pytest.approx(started + 180.0)
    assert message_of(world).startswith("not ready within 180 s: not every port accepts")


def test_old_release_is_never_touched_by_one_that_fails():
    world, diary = serving()
    world.publish("b", App(ready_after=None))
    world.run(3600.0)
    assert {"Terminate", "Kill", "Retire", "Route", "Switch"}.isdisjoint(diary.names)


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        (App(dies_after=0.01), "it ended before it was ready"),
        (App(dies_after=1.0, ready_after=None), "it ended before it was ready"),
        (App(shows="health", ready_after=None), "its health check says starting"),
        (App(shows="word", ready_after=None), "its status file says installing"),
        (App(prepared=False), "cannot pull: no such image"),
        (App(created=False), "cannot create the container: invalid value"),
        (App(started=False), "cannot start the container"),
    ],
    ids=["exits", "exits later", "never healthy", "never complete", "image", "create", "start"],
)
@both
def test_release_that_fails_leaves_nothing_behind_and_says_why(strategy, app, reason):
    world, _ = serving(strategy=strategy)
    world.publish("b", app)
    world.run(188.0)
    assert reason in message_of(world)
    assert list(world.boxes) == [world.memory.active]
    assert world.serves(active_of(world))


def test_failed_release_is_tried_again_with_pauses_that_double_to_300_s():
    world, diary = serving()
    world.publish("b", App(prepare_time=0.0, dies_after=0.01))
    world.run(3000.0)
    tries = diary.times(do.Prepare)
    pauses = [round(b - a) for a, b in pairwise(tries)]
    assert pauses[:8] == [10, 20, 40, 80, 160, 300, 300, 300]


def test_failed_release_waits_as_long_as_the_registry_asks():
    world, diary = serving()
    world.publish("b", App(prepared=False))
    world.memory = remember(world.memory, do.Reject("b", "too many requests", 45.0), world.now)
    begun = world.now
    world.run(44.0)
    assert diary.names == []
    world.run(2.0)
    assert diary.times(do.Prepare) == [begun + 45.0]


def test_failed_release_is_tried_at_once_when_the_document_changes():
    world, diary = serving()
    world.publish("b", App(prepared=False))
    world.run(200.0)
    world.publish("c")
    world.settle()
    assert diary.times(do.Prepare)[-1] == world.now


@both
def test_document_that_is_taken_back_ends_the_preparation_and_the_candidate(strategy):
    world, diary = serving(strategy=strategy)
    world.publish("b", App(prepare_time=5.0))
    world.run(1.0)
    world.publish("a")
    world.run(1.0)
    assert diary.names == ["Prepare", "Abandon"]
    world.publish("b", App(ready_after=None))
    world.run(20.0)
    world.publish("a")
    world.run(60.0)
    assert list(world.boxes) == [world.memory.active]
    assert world.reachable


def test_what_was_prepared_for_a_document_that_went_away_is_not_used_when_it_comes_again():
    world, diary = serving()
    world.publish("b", App(prepare_time=1.0))
    world.settle()
    world.pass_time(1.0)
    assert isinstance(world.preparation, Prepared)
    world.publish("a")
    world.settle()
    world.publish("b")
    world.run(0.5)
    assert diary.names == ["Prepare", "Abandon", "Prepare"]


def test_candidate_of_an_older_document_makes_room_for_the_newer_one():
    world, diary = serving()
    world.publish("b", App(ready_after=None))
    world.run(10.0)
    world.publish("c")
    world.run(60.0)
    assert active_of(world).revision == "c"
    assert len(diary.times(do.Switch)) == 1


@both
def test_port_of_a_foreign_process_fails_the_release_and_names_the_process(strategy):
    world, diary = serving(App(ports=(80,)), strategy)
    world.foreign = {443: "nginx"}
    world.publish("b", App(ports=(80, 443)))
    world.run(5.0)
    assert message_of(world) == "port 443 is taken by nginx"
    assert "Create" not in diary.names
    world.foreign = {}
    world.run(30.0)
    assert active_of(world).revision == "b"


# --- recreate ---------------------------------------------------------------------------------------


def test_recreate_ends_the_old_one_before_the_new_one_starts():
    world, diary = serving(strategy=RECREATE)
    world.publish("b")
    world.run(60.0)
    assert diary.names == [
        *("Prepare", "Create", "Terminate", "Start", "Watch", "Switch", "KeepRestarting"),
        *("Remove", "Collect"),
    ]


def test_recreate_brings_the_old_one_back_at_once_when_the_new_one_fails():
    world, diary = serving(strategy=RECREATE)
    old = active_of(world)
    world.publish("b", App(ready_after=None))
    world.run(185.0)
    [discarded] = diary.times(do.Discard)
    assert diary.times(do.Start, old.id) == [discarded]
    assert world.serves(old)


def test_recreate_gives_the_ports_back_when_the_document_goes_away_in_a_trial():
    world, _ = serving(strategy=RECREATE)
    old = active_of(world)
    world.publish("b", App(ready_after=None))
    world.run(10.0)
    world.desired = Keep()
    world.run(5.0)
    assert world.serves(old)


def test_container_without_published_ports_is_replaced_when_rules_can_not_be_used_any_more():
    world, _ = serving()
    world.policy = Policy(RECREATE)
    world.routes = {}
    world.run(60.0)
    assert active_of(world).published
    assert world.reachable


# --- nothing known to be wanted ---------------------------------------------------------------------


@both
def test_what_serves_goes_on_while_nothing_is_defined(strategy):
    world, diary = serving(strategy=strategy)
    world.desired = Keep()
    world.docker_kill(active_of(world))
    world.routes = {}
    world.run(60.0)
    assert world.reachable
    assert {"Create", "Terminate", "Remove"}.isdisjoint(diary.names)


def test_what_has_begun_to_end_ends_while_nothing_is_defined():
    world, _ = serving(App(requests_last=5.0))
    world.publish("b")
    world.run(5.0)
    world.desired = Keep()
    world.run(60.0)
    assert [box.revision for box in world.boxes.values()] == ["b"]
