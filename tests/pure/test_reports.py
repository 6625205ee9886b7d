"""What the control plane is told, told by stories of a host; each status once, in the API's words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from almagent.core.memory import Failure, Memory, Starts
from almagent.core.model import (
    AgentStatus,
    AgentWord,
    Container,
    ContainerStatus,
    GitSource,
    Keep,
    Leave,
    Observed,
    Run,
    Spec,
    State,
    Status,
)
from almagent.core.planner import Policy, Strategy
from almagent.core.reports import statuses
from tests.pure.host import App
from tests.pure.world import World, words_of

SWITCH, RECREATE = Strategy.SWITCH, Strategy.RECREATE
both = pytest.mark.parametrize("strategy", [SWITCH, RECREATE])


def story(world: World) -> list[str]:
    """All that was told, one word a status; a container is called by its number."""
    return [
        status.word.value
        if isinstance(status, AgentStatus)
        else f"{int(status.container_id[1:])} {status.word!s}"
        for status in world.told
    ]


def serving(strategy: Strategy = SWITCH, app: App | None = None) -> World:
    world = World(strategy)
    world.publish("a", app)
    world.run(60.0)
    world.told.clear()
    return world


@both
def test_first_release(strategy):
    world = World(strategy)
    world.publish("a")
    world.run(60.0)
    assert story(world) == ["installing", "1 starting", "1 running", "uptodate"]


def test_later_release():
    world = serving()
    world.publish("b")
    world.run(120.0)
    assert story(world) == ["installing", "2 updating", "2 running", "uptodate", "1 terminated"]


def test_later_release_where_the_old_one_makes_way():
    world = serving(RECREATE)
    world.publish("b")
    world.run(120.0)
    assert story(world) == ["installing", "2 updating", "1 terminated", "2 running", "uptodate"]


def test_what_an_image_says_of_itself_is_passed_on():
    world = World()
    world.publish("a", App(shows="word", ready_after=2.0))
    world.run(60.0)
    assert story(world) == [
        *("installing", "1 starting", "1 installing", "1 complete", "1 running", "uptodate")
    ]
    own = [s.own for s in world.told if isinstance(s, ContainerStatus)]
    assert own == [True, False, False, True]


def test_release_that_fails_is_told_once_with_cause_and_what_still_serves():
    world = serving()
    world.publish("b", App(ready_after=None))
    world.run(2000.0)
    errors = [s for s in world.told if isinstance(s, AgentStatus)][1:]
    assert errors == [
        AgentStatus(
            AgentWord.ERROR,
            "release b (image image:b): not ready within 180 s: "
            "not every port accepts connections (80); release a keeps serving",
        )
    ]
    assert words_of(world, "c002") == ["updating", "terminated"]
    assert words_of(world, "c001") == []


def test_release_that_fails_with_nothing_before_it():
    world = World()
    world.publish("a", App(prepared=False))
    world.run(60.0)
    assert [s for s in world.told if isinstance(s, AgentStatus)][1:] == [
        AgentStatus(
            AgentWord.ERROR, "release a (image image:a): cannot pull: no such image; nothing serves"
        )
    ]


def test_recovery_after_a_failure_is_told():
    world = serving()
    world.publish("b", App(prepared=False))
    world.run(5.0)
    world.apps["b"] = App()
    world.run(60.0)
    assert [w for w in story(world) if " " not in w] == ["installing", "error", "uptodate"]


@both
def test_container_that_is_killed(strategy):
    world = serving(strategy)
    world.docker_kill(world.boxes["c001"])
    world.run(60.0)
    assert story(world) == ["1 restarting", "1 running"]


def test_container_that_docker_restarts_by_itself_between_two_looks():
    world = serving()
    world.crash(world.boxes["c001"])
    world.pass_time(5.0)
    world.run(60.0)
    assert story(world) == ["1 restarting", "1 running"]


@both
def test_container_that_is_removed(strategy):
    world = serving(strategy)
    del world.boxes["c001"]
    world.run(60.0)
    assert story(world) == ["1 restarting", "1 terminated", "2 running"]


def test_unhealthy_container():
    world = serving(app=App(shows="health"))
    world.boxes["c001"].sick = True
    world.run(60.0)
    assert story(world) == ["1 restarting", "1 running"]


def test_release_that_is_switched_back():
    world = serving()
    world.publish("b", App(dies_after=10.0))
    world.run(300.0)
    assert story(world) == [
        *("installing", "2 updating", "2 running", "uptodate", "1 terminated"),
        *("2 restarting", "2 terminated", "1 restarting", "error", "1 running"),
    ]
    error = world.told[-2]
    assert isinstance(error, AgentStatus)
    assert error.message == (
        "release b (image image:b): it ended within 30 s after the switch; release a keeps serving"
    )


@both
@pytest.mark.parametrize("budget", [None, 20.0])
def test_leaving_tells_that_the_container_ended_and_nothing_else(strategy, budget):
    world = serving(strategy)
    world.desired = Leave("stop", None if budget is None else world.now + budget)
    world.run(120.0)
    assert story(world) == ["1 terminated"]
    assert world.outbox.open_containers() == []


def test_container_that_keeps_ending_is_an_error_until_it_stays():
    world = serving()
    for _ in range(4):
        world.docker_kill(world.boxes["c001"])
        world.run(9.0)
    assert [w for w in story(world) if " " not in w] == ["error"]
    error = next(s for s in world.told if isinstance(s, AgentStatus))
    assert error.message == "the container keeps ending (exit code 137)"
    world.run(130.0)
    assert story(world)[-1] == "uptodate"


@both
def test_agent_that_is_started_again_repeats_nothing(strategy):
    world = serving(strategy)
    world.restart_agent()
    world.run(600.0)
    assert story(world) == []


# --- one look ------------------------------------------------------------------------------------

ACTIVE = Container("c0", "web", "a", "sha256:a", State.RUNNING, 0.0, up_for=60.0, incarnation="1")
MEMORY = Memory("c0", incarnation="1")


def told(
    desired: str = "a",
    active: Container | None = ACTIVE,
    memory: Memory = MEMORY,
    unfinished: tuple[str, ...] = ("c0",),
    source: GitSource | None = None,
) -> tuple[Status, ...]:
    seen = Observed((active,) if active else ())
    run = Run(Spec(desired, "image", source=source))
    return statuses(run, seen, memory, Policy(SWITCH), unfinished)


def test_no_phase_is_told_while_nothing_is_defined():
    seen = Observed((ACTIVE,))
    assert statuses(Keep(), seen, MEMORY, Policy(SWITCH), ()) == (ContainerStatus("c0", "running"),)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (None, "release 0123abcd (image image)"),
        (GitSource("https://h/r"), "release 0123abcd (image image with code HEAD)"),
        (GitSource("https://h/r", "v1.2"), "release 0123abcd (image image with code v1.2)"),
    ],
    ids=["image", "default branch", "reference"],
)
def test_release_is_named_by_revision_image_and_reference(source, what):
    assert told("0123abcd4567", source=source)[-1] == AgentStatus(AgentWord.INSTALLING, what)


def test_error_stands_while_the_release_is_tried_again():
    memory = replace(MEMORY, failure=Failure("b", 2, "it ended", 50.0))
    phase = told("b", memory=memory)[-1]
    assert phase == AgentStatus(
        AgentWord.ERROR, "release b (image image): it ended; release a keeps serving"
    )


def test_failure_of_another_document_is_not_told():
    memory = replace(MEMORY, failure=Failure("c", 2, "it ended", 50.0))
    assert told("b", memory=memory)[-1].word == "installing"


@pytest.mark.parametrize(
    ("state", "facts", "phase"),
    [
        (State.RUNNING, {}, AgentStatus(AgentWord.UPTODATE)),
        (State.RUNNING, {"up_for": 2.0}, None),
        (State.RESTARTING, {"up_for": 60.0}, None),
        (State.PAUSED, {"up_for": 2.0}, None),
        (
            State.EXITED,
            {"up_for": 2.0, "exit_code": 3},
            AgentStatus(AgentWord.ERROR, "the container keeps ending (exit code 3)"),
        ),
        (
            State.EXITED,
            {"up_for": 2.0, "oom_killed": True},
            AgentStatus(AgentWord.ERROR, "the container keeps ending (out of memory)"),
        ),
    ],
)
def test_phase_of_a_container_that_was_started_many_times(state, facts, phase):
    memory = replace(MEMORY, starts=Starts(3, 0.0))
    active = replace(ACTIVE, state=state, **facts)
    phases = [s for s in told(active=active, memory=memory) if isinstance(s, AgentStatus)]
    assert phases == ([phase] if phase else [])


def test_container_that_is_gone_is_terminated():
    assert ContainerStatus("c9", "terminated") in told(unfinished=("c0", "c9"))


def test_container_that_was_told_as_ended_is_not_told_again():
    only = told(active=None, memory=Memory(), unfinished=())
    assert [s.word for s in only] == ["installing"]
