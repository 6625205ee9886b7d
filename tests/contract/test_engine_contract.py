"""What every Engine promises: the one over Docker, with a real registry, and the one in memory."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from almagent.core.model import Secret, Spec, State
from almagent.ports import Engine, Refused, Unavailable
from tests.peers.engine_world import (
    What,
    World,
    docker_world,
    has_ended,
    is_running,
    memory_world,
    release,
    until,
)

GONE = "f" * 64


@pytest.fixture(params=["memory", "docker"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "memory":
        async with memory_world() as world:
            yield world
        return
    api = request.getfixturevalue("docker_api")
    stack_id = request.getfixturevalue("stack_id")
    async with docker_world(api, stack_id, tmp_path) as world:
        yield world


@pytest.fixture
def engine(world: World) -> Engine:
    return world.make("Web01")


async def create(
    world: World, engine: Engine, what: What | None = None, *, publish: bool = False, **changes: Any
) -> str:
    """A container of a fresh image; its id."""
    image = await engine.pull(world.publish("app:1", what or What()), None)
    spec = Spec("0123456789abcdef", "app:1", changes.pop("environment", {}))
    return await engine.create(spec, release(image.id, "app:1", **changes), publish=publish)


async def run(world: World, engine: Engine, what: What | None = None, **changes: Any) -> str:
    container_id = await create(world, engine, what, **changes)
    await engine.start(container_id)
    return container_id


async def only(engine: Engine) -> Any:
    (container,) = await engine.observe()
    return container


# --- from nothing to running ---


async def test_there_is_nothing_at_first(engine: Engine):
    assert await engine.observe() == ()


async def test_a_created_container_is_known_by_its_labels_and_has_not_run(
    world: World, engine: Engine
):
    container_id = await create(
        world, engine, commit="c0ffee", ports=(80, 443), image_digest="sha256:d"
    )
    seen = await only(engine)
    assert seen.id == container_id
    assert len(container_id) == 64
    assert seen.state is State.CREATED
    assert (seen.revision, seen.commit, seen.image) == ("0123456789abcdef", "c0ffee", "app:1")
    assert (seen.ports, seen.image_digest, seen.published) == ((80, 443), "sha256:d", False)
    assert (seen.pid, seen.incarnation, seen.exit_code, seen.up_for) == (0, "", None, 0.0)
    assert (seen.doors, seen.restarts) == ({}, False)
    assert seen.address
    assert seen.name == "almagent-Web01-01234567"


async def test_a_started_container_runs(world: World, engine: Engine):
    container_id = await run(world, engine, What(status_word="complete"))
    seen = await until(engine, lambda c: c.status_word == "complete", container_id)
    assert seen.state is State.RUNNING
    assert seen.pid > 0
    assert seen.incarnation
    assert 0 <= seen.up_for < 10
    assert (seen.exit_code, seen.oom_killed, seen.health) == (None, False, None)


async def test_a_running_container_has_a_door_for_each_port(world: World, engine: Engine):
    container_id = await run(world, engine, ports=(80, 443))
    seen = await only(engine)
    assert set(seen.doors) == {80, 443}
    assert len({*seen.doors.values(), seen.address}) == 3
    assert seen.targets == {port: (seen.address, seen.doors[port]) for port in (80, 443)}
    await engine.kill(container_id)
    assert (await until(engine, has_ended, container_id)).doors == {}


async def test_starting_twice_changes_nothing(world: World, engine: Engine):
    container_id = await run(world, engine)
    first = await only(engine)
    await engine.start(container_id)
    assert (await only(engine)).incarnation == first.incarnation


async def test_two_containers_of_one_revision_share_neither_name_nor_address(
    world: World, engine: Engine
):
    await create(world, engine)
    await create(world, engine)
    older, newer = await engine.observe()
    assert older.created < newer.created
    assert older.address != newer.address
    assert newer.name == f"{older.name}-2"


async def test_a_freed_address_is_given_again(world: World, engine: Engine):
    first = await create(world, engine)
    address = (await only(engine)).address
    await create(world, engine)
    await engine.remove(first)
    await create(world, engine)
    assert address in {c.address for c in await engine.observe()}


async def test_another_flag_of_the_stack_is_not_ours(world: World, engine: Engine):
    await create(world, world.make("Web02"))
    assert await engine.observe() == ()


async def test_an_agent_that_was_restarted_sees_the_same(world: World, engine: Engine):
    await run(world, engine)
    after = await only(world.make("Web01"))
    assert after.incarnation == (await only(engine)).incarnation


async def test_published_ports_are_taken_by_one_running_container(world: World, engine: Engine):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    ids = [await create(world, engine, publish=True, ports=(port,)) for _ in range(2)]
    await engine.start(ids[0])
    with pytest.raises(Refused):
        await engine.start(ids[1])
    seen = {c.id: c for c in await engine.observe()}
    assert all(c.published for c in seen.values())
    assert is_running(seen[ids[0]])
    assert not is_running(seen[ids[1]])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "x"),
        ("A=B", "x"),
        ("A\0B", "x"),
        ("A", "canary\0"),
        ("A", "canary" * 22000),
        ("A", "\ud800"),
    ],
    ids=["no name", "equals sign", "NUL in name", "NUL", "128 KiB", "surrogate"],
)
async def test_a_value_that_docker_chokes_on_is_refused_and_leaves_nothing(
    world: World, engine: Engine, name: str, value: str
):
    with pytest.raises(Refused) as caught:
        await create(world, engine, environment={name: Secret(value)})
    assert "canary" not in str(caught.value)
    assert await engine.observe() == ()


async def test_an_image_that_is_gone_is_refused_and_leaves_nothing(engine: Engine):
    wanted = release("sha256:" + "0" * 64, "app:1")
    with pytest.raises(Refused):
        await engine.create(Spec("r", "app:1"), wanted, publish=False)
    assert await engine.observe() == ()


# --- ends ---


async def test_a_container_that_exits_says_why(world: World, engine: Engine):
    container_id = await run(world, engine, What(exits=3))
    seen = await until(engine, has_ended, container_id)
    assert (seen.exit_code, seen.pid) == (3, 0)
    evidence = await engine.evidence(container_id)
    assert (evidence.exit_code, evidence.oom_killed) == (3, False)


async def test_docker_restarts_a_crashed_container_where_told_to(world: World, engine: Engine):
    container_id = await run(world, engine)
    await engine.set_restart(container_id, always=True)
    before = await only(engine)
    assert before.restarts
    await world.crash(before)
    after = await until(
        engine, lambda c: is_running(c) and c.incarnation != before.incarnation, container_id
    )
    assert after.address == before.address
    assert set(after.doors) == {80}
    assert after.doors != before.doors


async def test_a_crashed_container_stays_down_where_not(world: World, engine: Engine):
    container_id = await run(world, engine)
    await engine.set_restart(container_id, always=True)
    await engine.set_restart(container_id, always=False)
    await world.crash(await only(engine))
    assert (await until(engine, has_ended, container_id)).exit_code == 137


async def test_terminate_asks_it_to_end_and_it_stays_down(world: World, engine: Engine):
    container_id = await run(world, engine, What(status_word="up"))
    await until(engine, lambda c: c.status_word == "up", container_id)
    await engine.set_restart(container_id, always=True)
    await engine.terminate(container_id)
    seen = await until(engine, has_ended, container_id)
    assert (seen.exit_code, seen.restarts) == (143, False)
    assert seen.address


async def test_kill_ends_what_does_not_heed_terminate(world: World, engine: Engine):
    container_id = await run(world, engine, What(heeds_stop=False, status_word="up"))
    await until(engine, lambda c: c.status_word == "up", container_id)
    await engine.terminate(container_id)
    assert is_running(await only(engine))
    await engine.kill(container_id)
    assert (await until(engine, has_ended, container_id)).exit_code == 137


async def test_ending_what_has_ended_is_no_error(world: World, engine: Engine):
    container_id = await create(world, engine)
    for _ in range(2):
        await engine.terminate(container_id)
        await engine.kill(container_id)
    await engine.remove(container_id)
    for step in (engine.terminate, engine.kill, engine.remove):
        await step(container_id)


async def test_a_running_container_can_be_removed(world: World, engine: Engine):
    await engine.remove(await run(world, engine))
    assert await engine.observe() == ()


async def test_what_does_not_exist_can_neither_start_nor_testify(engine: Engine):
    for call in (engine.start(GONE), engine.evidence(GONE), engine.set_restart(GONE, always=True)):
        with pytest.raises(Refused):
            await call


# --- hooks ---


async def test_a_hook_runs_where_the_image_has_one(world: World, engine: Engine):
    container_id = await run(world, engine, What(hooks={"/pre_shutdown.sh": "saved"}))
    assert await engine.run_hook(container_id, "/pre_shutdown.sh", 5) == "saved"
    assert await engine.run_hook(container_id, "/other.sh", 5) == ""


# --- images ---


async def test_a_pulled_image_tells_its_ports_and_labels(world: World, engine: Engine):
    reference = world.publish(
        "app:1", What(ports=(8080, 80), labels={"com.mobingi.code_dir": "/srv"})
    )
    image = await engine.pull(reference, None)
    assert image.id.startswith("sha256:")
    assert image.digest.startswith("sha256:")
    assert tuple(sorted(image.ports)) == (80, 8080)
    assert image.labels["com.mobingi.code_dir"] == "/srv"


async def test_a_moved_tag_is_followed(world: World, engine: Engine):
    first = await engine.pull(world.publish("app:1", What()), None)
    second = await engine.pull(world.publish("app:1", What()), None)
    assert first.id != second.id
    assert (await engine.pull(world.publish("app:2", What()), None)).id != second.id


async def test_a_pull_that_breaks_off_never_yields_the_stale_image(world: World, engine: Engine):
    await engine.pull(world.publish("app:1", What()), None)
    reference = world.publish("app:1", What())
    world.break_pulls(reference)
    with pytest.raises((Refused, Unavailable), match="cannot pull"):
        await engine.pull(reference, None)


@pytest.mark.parametrize("reference", ["a b", "App:1", "name:a:b", "sha256:" + "0" * 64, "a\0b"])
async def test_what_is_no_reference_is_refused(engine: Engine, reference: str):
    with pytest.raises(Refused):
        await engine.pull(reference, None)


async def test_old_images_are_collected_but_those_kept_in_use_and_recent(
    world: World, engine: Engine
):
    references = [world.publish(f"app:{n}", What()) for n in range(5)]
    images = [await engine.pull(reference, None) for reference in references]
    wanted = release(images[0].id, references[0])
    used = await engine.create(Spec("r", "app"), wanted, publish=False)
    await engine.collect([images[1].id])
    can = [await can_create(engine, image.id) for image in images]
    assert can == [True, True, False, False, True]  # used, kept, old, old, the one recent image
    await engine.remove(used)


async def can_create(engine: Engine, image_id: str) -> bool:
    try:
        container = await engine.create(Spec("r", "x"), release(image_id, "x"), publish=False)
    except Refused:
        return False
    await engine.remove(container)
    return True


# --- what happens meanwhile ---


async def test_changes_tells_whose_state_changed(world: World, engine: Engine):
    async with aclosing(engine.changes()) as changes:  # type: ignore[type-var]
        assert await anext(changes) == ""
        mine = await run(world, engine)
        await run(world, world.make("Web02"))
        async with asyncio.timeout(5):
            assert {await anext(changes) for _ in range(2)} == {mine}
        await world.vanish(await only(engine))
        await wait_for(changes, mine)


async def test_while_the_engine_is_away_nothing_is_known_and_then_it_goes_on(
    world: World, engine: Engine
):
    container_id = await run(world, engine)
    async with aclosing(engine.changes()) as changes:  # type: ignore[type-var]
        await wait_for(changes, "")
        await world.away()
        for call in (engine.observe, lambda: engine.start(container_id)):
            with pytest.raises(Unavailable):
                await call()
        await world.back()
        await wait_for(changes, "")
        assert (await only(engine)).id == container_id


async def wait_for(changes: AsyncIterator[str], container_id: str) -> None:
    async with asyncio.timeout(10):
        while await anext(changes) != container_id:
            pass
