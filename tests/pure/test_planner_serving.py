"""What the planner decides, case by case: the container that serves, come what may."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from almagent.core import actions as do
from almagent.core.memory import Memory, remember
from almagent.core.model import Leave, Observed, Run, Spec, State, Target
from almagent.core.planner import Strategy, lost_first
from tests.pure.diary import SWITCH, active_of, both, serving
from tests.pure.host import App, release_of

# --- the active container ---------------------------------------------------------------------------


@both
def test_killed_container_is_started_again_at_once(strategy):
    world, diary = serving(strategy=strategy)
    world.docker_kill(active_of(world))
    world.settle()
    assert diary.times(do.Start) == [world.now]
    assert active_of(world).state is State.RUNNING


def test_container_that_keeps_dying_is_started_with_pauses_that_double_to_300_s():
    world, diary = serving()
    for _ in range(12):
        world.docker_kill(active_of(world))
        while active_of(world).state is not State.RUNNING:
            world.run(0.5)
    starts = diary.times(do.Start)
    pauses = [round(b - a) for a, b in pairwise(starts)]
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_container_that_ran_for_long_is_started_at_once_again():
    world, diary = serving()
    for _ in range(3):
        world.docker_kill(active_of(world))
        world.run(11.0)
    assert len(diary.times(do.Start)) == 3
    world.docker_kill(active_of(world))
    world.settle()
    assert diary.times(do.Start)[-1] == world.now


@both
def test_unhealthy_container_is_stopped_with_grace_and_started_again(strategy):
    world, diary = serving(App(shows="health", ends_after=None), strategy)
    active_of(world).sick = True
    begun = world.now
    world.run(40.0)
    assert diary.names[:4] == ["Terminate", "Kill", "Start", "KeepRestarting"]
    assert diary.times(do.Terminate) == [begun]
    assert diary.times(do.Kill) == [begun + 30.0]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {80: Target("172.30.0.99")},
        {80: Target("172.30.0.2", "127.0.0.1:40180"), 8443: Target("172.30.0.2")},
        {80: Target("172.30.0.2", "127.0.0.1:40080")},
    ],
    ids=["flushed", "elsewhere", "a port too many", "the door of an earlier start"],
)
def test_rules_that_are_not_as_they_should_be_are_mended(wrong):
    world, diary = serving()
    world.routes = wrong
    world.settle()
    assert diary.names == ["Route"]
    assert world.routes == {80: Target("172.30.0.2", "127.0.0.1:40180")}
    assert world.reachable


def test_route_follows_a_container_that_gets_another_address():
    world, diary = serving()
    active_of(world).address = "172.30.1.7"
    world.settle()
    assert diary.names == ["Route"]
    assert world.routes[80].address == "172.30.1.7"


def test_routes_that_the_other_strategy_left_do_not_hide_the_published_ports():
    world, diary = serving()
    world.policy = replace(world.policy, strategy=Strategy.RECREATE)
    world.restart_agent()
    world.run(60.0)
    assert diary.names.index("Switch") < diary.names.index("Route")
    assert world.routes == {}
    assert active_of(world).published
    assert world.reachable


def test_what_the_other_strategy_published_is_routed_without_a_release():
    world, diary = serving(strategy=Strategy.RECREATE)
    world.policy = replace(world.policy, strategy=Strategy.SWITCH)
    world.restart_agent()
    world.settle()
    assert diary.names == ["Route"]
    assert world.reachable


def test_what_cannot_be_published_after_all_keeps_its_routes():
    world, _ = serving()
    world.policy = replace(world.policy, strategy=Strategy.RECREATE)
    world.apps["a"] = App(created=False)
    world.restart_agent()
    world.run(5.0)
    world.routes = {80: Target("172.30.0.99")}
    world.settle()
    assert world.reachable


@both
def test_docker_is_to_restart_what_serves(strategy):
    world, diary = serving(strategy=strategy)
    active_of(world).restarts = False
    world.settle()
    assert diary.names == ["KeepRestarting"]


@both
def test_engine_that_restarts_brings_the_container_back_without_a_release(strategy):
    world, diary = serving(strategy=strategy)
    world.reboot_engine()
    world.run(60.0)
    assert diary.names == (["Route"] if strategy is SWITCH else [])  # to its new doors
    assert world.reachable


# --- what somebody removed --------------------------------------------------------------------------


@both
def test_removed_container_is_replaced_without_preparing_or_judging_it_again(strategy):
    world, diary = serving(App(ready_after=3.0), strategy)
    del world.boxes[world.memory.active]
    begun = world.now
    world.run(60.0)
    assert diary.names[:4] == ["Create", "Start", "Watch", "Switch"]
    assert diary.times(do.Switch) == [begun]
    assert active_of(world).revision == "a"


@both
def test_release_that_can_not_be_made_again_from_memory_is_prepared_anew(strategy):
    world, diary = serving(strategy=strategy)
    del world.boxes[world.memory.active]
    world.apps["a"] = App(created=False)
    world.settle()
    world.apps["a"] = App()
    world.run(60.0)
    assert diary.names[:3] == ["Create", "Prepare", "Create"]
    assert world.reachable


@both
def test_lost_release_comes_back_before_another_one_that_fails_goes_on(strategy):
    world, _ = serving(strategy=strategy)
    world.publish("b", App(prepared=False))
    world.run(100.0)
    del world.boxes[world.memory.active]
    world.run(5.0)
    assert active_of(world).revision == "a"
    assert world.reachable


def test_lost_release_and_another_that_both_fail_do_not_take_turns_without_a_pause():
    world, diary = serving(App(ports=(443,)))
    world.foreign = {443: "nginx"}
    del world.boxes[world.memory.active]
    world.publish("b", App(ports=(443,)))
    world.run(600.0)
    assert len(diary.times(do.Prepare)) == 6  # at 0, 12, 34, 76, 158 and 320 s


def test_lost_release_is_not_waited_for_when_it_can_not_come_back():
    seen, lost = Observed(), Spec("a", "image:a")
    desired, memory = Run(Spec("b", "image:b")), Memory("gone", release=release_of(lost, App()))
    assert lost_first(desired, seen, memory, {"a": lost}) == Run(lost)
    assert lost_first(desired, seen, memory, {}) is desired
    failed = remember(memory, do.Reject("a", "no"), 0.0)
    assert lost_first(desired, seen, failed, {"a": lost}) is desired
    assert lost_first(desired, seen, Memory(), {"a": lost}) is desired
    leaving = Leave("stop")
    assert lost_first(leaving, seen, memory, {"a": lost}) is leaving


# --- memory that was lost ---------------------------------------------------------------------------


@both
def test_agent_without_memory_adopts_what_serves(strategy):
    world, diary = serving(strategy=strategy)
    serves = active_of(world)
    world.lose_memory()
    world.restart_agent()
    world.run(60.0)
    assert diary.names == ["Adopt"]
    assert active_of(world) is serves
    assert world.reachable


def test_agent_without_memory_adopts_the_one_that_has_the_traffic_not_the_newest():
    world, _ = serving()
    serves = active_of(world)
    world.publish("b", App(ready_after=20.0))
    world.run(10.0)
    world.lose_memory()
    world.restart_agent()
    world.settle()
    assert active_of(world) is serves


def test_agent_without_memory_and_rules_adopts_the_one_that_docker_is_to_restart():
    world, _ = serving()
    serves = active_of(world)
    world.publish("b", App(ready_after=20.0))
    world.run(10.0)
    world.lose_memory()
    world.routes = {}
    world.restart_agent()
    world.settle()
    assert active_of(world) is serves


def test_nothing_is_collected_while_it_is_not_known_what_the_active_one_was_made_from():
    world, diary = serving()
    world.lose_memory()
    world.restart_agent()
    world.run(600.0)
    assert "Collect" not in diary.names


def test_agent_without_memory_that_is_to_leave_runs_the_hook_of_what_serves():
    world, diary = serving()
    world.lose_memory()
    world.restart_agent()
    world.desired = Leave("spot", hook="/pre_shutdown.sh")
    world.run(60.0)
    assert diary.names[:2] == ["Adopt", "RunHook"]
    assert world.boxes == {}
