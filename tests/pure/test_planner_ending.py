"""What the planner decides, case by case: drain, stop, switch back, leave for good."""

from __future__ import annotations

import math

import pytest

from almagent.core import actions as do
from almagent.core.memory import Memory
from almagent.core.model import Leave, Observed
from almagent.core.planner import Policy, plan
from tests.pure.diary import RECREATE, SWITCH, active_of, both, message_of, serving, write_down
from tests.pure.host import App
from tests.pure.world import World

# --- drain and stop ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requests_last", "terminated_after"),
    [(0.0, 0.5), (0.2, 0.5), (5.0, 5.0), (29.9, 29.9), (31.0, 30.0), (math.inf, 30.0)],
)
def test_old_release_ends_when_its_connections_have_and_at_drain_timeout(
    requests_last, terminated_after
):
    world, diary = serving(App(requests_last=requests_last))
    world.publish("b")
    world.run(60.0)
    [switched], [terminated] = diary.times(do.Switch), diary.times(do.Terminate)
    assert terminated_after <= terminated - switched + 1e-6
    assert terminated - switched <= terminated_after + 0.3 + 1e-6


def test_old_release_without_ports_has_nothing_to_drain():
    world, diary = serving(App(ports=(), shows="time", ready_after=5.0))
    world.publish("b")
    world.run(60.0)
    [switched], [terminated] = diary.times(do.Switch), diary.times(do.Terminate)
    assert terminated - switched == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("ends_after", "killed_after"), [(0.5, None), (29.0, None), (31.0, 30.0), (None, 30.0)]
)
@both
def test_stop_signal_gets_stop_timeout_before_the_kill(strategy, ends_after, killed_after):
    world, diary = serving(App(ends_after=ends_after), strategy)
    world.publish("b")
    world.run(120.0)
    [terminated] = diary.times(do.Terminate)
    killed = [at - terminated for at in diary.times(do.Kill)]
    assert killed == ([] if killed_after is None else [pytest.approx(killed_after)])
    assert active_of(world).revision == "b"


# --- bake and switch back ---------------------------------------------------------------------------


@both
def test_previous_container_is_kept_stopped_while_the_new_release_bakes(strategy):
    world, diary = serving(strategy=strategy)
    old = active_of(world)
    world.publish("b")
    world.run(90.0)
    [switched] = diary.times(do.Switch)
    assert diary.times(do.Remove, old.id) == [pytest.approx(switched + 30.0)]
    assert diary.names[-1] == "Collect"


@both
@pytest.mark.parametrize("lives", [2.0, 10.0, 29.0])
def test_release_that_dies_in_its_bake_is_switched_back_at_once_and_not_tried_again(
    strategy, lives
):
    world, diary = serving(App(ends_after=0.0), strategy)
    old = active_of(world)
    world.publish("b", App(dies_after=lives))
    world.run(60.0)
    [died], [reverted] = diary.times(do.Start)[:1], diary.times(do.Revert)
    assert reverted == pytest.approx(died + lives)
    assert active_of(world) is old
    assert world.serves(old)
    assert message_of(world) == "it ended within 30 s after the switch"
    world.run(3600.0)
    assert diary.times(do.Prepare) == diary.times(do.Prepare)[:1]
    assert list(world.boxes) == [old.id]


@both
def test_release_that_turns_unhealthy_in_its_bake_is_switched_back(strategy):
    world, diary = serving(strategy=strategy)
    old = active_of(world)
    world.publish("b", App(shows="health", ready_after=1.0))
    world.run(10.0)
    active_of(world).sick = True
    world.run(3.0)
    assert active_of(world) is old
    assert world.serves(old)
    assert diary.only(do.Revert).reason == "it turned unhealthy within 30 s after the switch"


def test_release_that_was_restarted_in_its_bake_while_the_agent_was_away_is_switched_back():
    world, diary = serving()
    world.publish("b")
    world.run(10.0)
    box = active_of(world)
    world.docker_kill(box)
    box.run(world.now)
    world.restart_agent()
    world.settle()
    assert "Revert" in diary.names


@both
def test_release_that_died_in_its_bake_while_the_agent_was_away_is_switched_back(strategy):
    world, diary = serving(strategy=strategy)
    world.publish("b", App(dies_after=20.0))
    world.run(10.0)
    world.pass_time(600.0)
    world.restart_agent()
    world.run(10.0)
    assert diary.names.count("Revert") == 1
    assert active_of(world).revision == "a"
    assert world.reachable


def test_release_that_died_after_its_bake_while_the_agent_was_away_is_started_again():
    world, diary = serving()
    world.publish("b", App(dies_after=200.0))
    world.run(10.0)
    world.pass_time(600.0)
    world.restart_agent()
    world.run(10.0)
    assert "Revert" not in diary.names
    assert active_of(world).revision == "b"
    assert world.reachable


def test_docker_restarts_a_release_by_itself_only_when_it_has_baked():
    world, diary = serving()
    world.publish("b")
    world.run(60.0)
    [switched], [restarts] = diary.times(do.Switch), diary.times(do.KeepRestarting)
    assert restarts == pytest.approx(switched + 30.0)


def test_requests_to_an_unhealthy_release_finish_while_it_is_switched_back():
    world, diary = serving()
    world.publish("b", App(shows="health", requests_last=4.0))
    world.run(10.0)
    bad = active_of(world)
    bad.sick = True
    world.run(10.0)
    [reverted], [terminated] = diary.times(do.Revert), diary.times(do.Terminate, bad.id)
    assert terminated >= reverted + 4.0


def test_release_that_was_switched_back_is_tried_when_the_document_changes():
    world, diary = serving()
    world.publish("b", App(dies_after=5.0))
    world.run(60.0)
    world.publish("a")
    world.run(5.0)
    world.publish("b", App())
    world.run(60.0)
    assert active_of(world).revision == "b"
    assert len(diary.times(do.Revert)) == 1


def test_release_that_dies_after_its_bake_is_restarted_not_switched_back():
    world, diary = serving()
    world.publish("b")
    world.run(40.0)
    world.docker_kill(active_of(world))
    world.run(10.0)
    assert "Revert" not in diary.names
    assert active_of(world).revision == "b"
    assert world.reachable


def test_release_that_makes_way_in_its_bake_has_not_failed_it():
    world, diary = serving(strategy=RECREATE)
    world.publish("b")
    world.run(10.0)
    world.publish("c")
    world.run(60.0)
    assert "Revert" not in diary.names
    assert active_of(world).revision == "c"


def test_without_a_previous_container_there_is_nothing_to_switch_back_to():
    world = World()
    diary = write_down(world)
    world.publish("a", App(dies_after=5.0))
    world.run(60.0)
    assert "Revert" not in diary.names


# --- leaving ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "app", "terminated", "gone"),
    [
        (None, App(), 0.5, 1.0),
        (None, App(requests_last=10.0), 10.0, 10.5),
        (None, App(requests_last=math.inf, ends_after=None), 30.0, 60.0),
        (110.0, App(requests_last=math.inf, ends_after=None), 80.0, 110.0),
        (110.0, App(requests_last=5.0), 5.0, 5.5),
        (40.0, App(requests_last=math.inf, ends_after=None), 20.0, 40.0),
        (10.0, App(requests_last=math.inf, ends_after=None), 5.0, 10.0),
        (1.0, App(requests_last=math.inf, ends_after=None), 0.5, 1.0),
        (0.0, App(requests_last=math.inf, ends_after=None), 0.0, 0.0),
    ],
)
def test_leaving_divides_what_the_deadline_leaves_between_drain_and_grace(
    budget, app, terminated, gone
):
    world, diary = serving(app)
    begun = world.now
    world.desired = Leave("spot", None if budget is None else begun + budget)
    world.run(130.0)
    assert diary.names[0] == "Route"
    assert diary.times(do.Route) == [begun]
    [at] = diary.times(do.Terminate)
    assert at - begun == pytest.approx(terminated, abs=0.35)
    [at] = diary.times(do.Remove)
    assert at - begun == pytest.approx(gone, abs=0.35)
    assert world.gone


@pytest.mark.parametrize(("drain", "stop"), [(0.0, 30.0), (5.0, 30.0), (30.0, 5.0)])
def test_leaving_without_a_deadline_drains_for_drain_timeout(drain, stop):
    app = App(requests_last=math.inf, ends_after=None)
    world, diary = serving(app, drain_timeout=drain, stop_timeout=stop)
    begun = world.now
    world.desired = Leave("stop")
    world.run(100.0)
    assert diary.times(do.Terminate) == [pytest.approx(begun + drain)]
    assert diary.times(do.Kill) == [pytest.approx(begun + drain + stop)]


def test_leaving_ends_everything_by_the_deadline_in_the_middle_of_a_release():
    world, _ = serving(App(requests_last=math.inf, ends_after=None))
    world.publish("b", App(requests_last=math.inf, ends_after=None))
    world.run(5.0)
    world.publish("c", App(ready_after=None, ends_after=None))
    world.run(3.0)
    assert len(world.boxes) == 3
    world.desired = Leave("spot", world.now + 8.0)
    world.run(8.5)
    assert world.boxes == {}
    assert world.gone


def test_leaving_starts_no_release():
    world, diary = serving()
    world.publish("b", App(prepare_time=5.0))
    world.run(1.0)
    world.desired = Leave("spot", world.now + 100.0)
    world.run(60.0)
    assert diary.names[:2] == ["Prepare", "Abandon"]
    assert {"Create", "Start"}.isdisjoint(diary.names)


def test_hook_runs_once_before_the_ports_close_and_gets_half_the_time():
    world, diary = serving()
    world.desired = Leave("spot", world.now + 100.0, hook="/pre_shutdown.sh")
    world.run(60.0)
    assert diary.names[:2] == ["RunHook", "Route"]
    assert diary.names.count("RunHook") == 1
    assert diary.only(do.RunHook).limit == 50.0


def test_hook_runs_again_for_the_container_of_the_next_start():
    world, _ = serving()
    world.desired = Leave("stop", hook="/pre_shutdown.sh")
    world.run(60.0)
    world.restart_agent()
    world.run(60.0)
    diary = write_down(world)
    world.desired = Leave("spot", hook="/pre_shutdown.sh")
    world.run(60.0)
    assert "RunHook" in diary.names


def test_leaving_that_was_cut_short_runs_the_hook_and_drains_again_the_next_time():
    app = App(requests_last=20.0)
    world, _ = serving(app)
    world.desired = Leave("stop", hook="/pre_shutdown.sh")
    world.run(2.0)
    world.restart_agent()
    world.run(60.0)
    diary = write_down(world)
    begun = world.now
    world.desired = Leave("spot", begun + 110.0, hook="/pre_shutdown.sh")
    world.run(60.0)
    assert diary.names[:2] == ["RunHook", "Route"]
    assert diary.times(do.Terminate) == [pytest.approx(begun + 20.0, abs=0.35)]


@pytest.mark.parametrize("after", [0.0, 2.0, 11.0, 60.0])
@both
def test_agent_that_stays_after_all_serves_again(strategy, after):
    world, _ = serving(App(requests_last=10.0, ends_after=5.0), strategy)
    world.desired = Leave("spot", world.now + 110.0)
    world.run(after)
    world.restart_agent()
    world.run(60.0)
    assert world.reachable
    assert active_of(world).revision == "a"
    assert len(world.boxes) == 1


def test_nothing_is_left_to_do_when_nothing_was_there():
    todo = plan(Leave("stop"), Observed(), Memory(), Policy(SWITCH), 0.0)
    assert todo.done
    assert todo.actions == []


def test_agent_killed_while_leaving_serves_on_with_the_same_container_when_it_is_started():
    world, _ = serving(App(requests_last=10.0))
    serves = active_of(world)
    world.desired = Leave("stop")
    world.run(2.0)
    assert not world.reachable
    world.restart_agent()
    diary = write_down(world)
    world.run(60.0)
    assert diary.names == ["Route"]
    assert active_of(world) is serves
    world.publish("b")
    world.run(60.0)
    [switched], [terminated] = diary.times(do.Switch), diary.times(do.Terminate)
    assert terminated >= switched + 10.0
