"""A release loses no request: switch, readiness, drain, rollback. Real packets, real containers."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from almagent.wiring import table_name
from tests.peers.agent import Agent, answers, fetch
from tests.peers.api import ScriptedApi
from tests.peers.apps import healthy_app
from tests.peers.command import almagent
from tests.peers.images import Images
from tests.peers.load import Tally, Target, connect, exchange, load, one
from tests.peers.registry import RunningRegistry
from tests.scenario.releases import HOST, document, outside


@asynccontextmanager
async def load_from_everywhere(port: int, rate: float = 200) -> AsyncIterator[list[Tally]]:
    """New and kept-alive connections from outside, new ones from this host."""
    tallies: list[Tally] = []
    with outside() as there:
        async with AsyncExitStack() as stack:
            far = Target(HOST, port, there.machine.path)
            tallies += await stack.enter_async_context(load(far, rate=rate, kept=20))
            near = Target("127.0.0.1", port)
            tallies += await stack.enter_async_context(load(near, rate=rate / 4))
            yield tallies


def nothing_lost(tallies: list[Tally]) -> None:
    for tally in tallies:
        assert tally.sent > 10, tally
        assert not tally.lost, tally


@pytest.mark.timeout(300)
async def test_twenty_releases_under_load_lose_nothing(
    agent: Agent, api: ScriptedApi, image: str, port: int
):
    agent.configure(deploy={"drain_timeout": 1.5, "bake_time": 1}, api={"poll_interval": 0.3})
    api.document = document(image, port, PAGE="r0")
    await agent.start()
    await agent.until_told("uptodate")
    async with load_from_everywhere(port) as tallies:
        for number in range(1, 21):
            api.document = document(image, port, PAGE=f"r{number}")
            await agent.until_told("uptodate", number + 1)
        await asyncio.sleep(2)
    nothing_lost(tallies)
    assert await fetch(port) == "r20"
    for tally in tallies:
        seen = set(tally.bodies)  # a kept connection may miss a release while its own one drains
        assert seen <= {f"r{n}" for n in range(21)}, tally
        assert len(seen) > 8 if tally.name.startswith("kept") else {"r1", "r19"} < seen, tally


@pytest.mark.timeout(200)
@pytest.mark.parametrize("slow", ["listens late", "healthy late"])
async def test_a_slow_starter_loses_nothing(
    agent: Agent,
    api: ScriptedApi,
    image: str,
    port: int,
    slow: str,
    shared_registry: RunningRegistry,
    images: Images,
):
    extra: dict[str, object] = {"START": 4}  # the app counts whole seconds: at least 3
    if slow == "healthy late":
        image, extra = shared_registry.push(healthy_app(images), "healthy:1"), {"HEALTHY_AFTER": 6}
    api.document = document(image, port, PAGE="old", **extra)
    await agent.start()
    await agent.until_told("uptodate")
    async with load_from_everywhere(port, rate=100) as tallies:
        for number in (1, 2):
            began = time.monotonic()
            api.document = document(image, port, PAGE=f"new{number}", **extra)
            await agent.until_told("uptodate", number + 1)
            assert time.monotonic() - began > (3 if slow == "listens late" else 5)
        await asyncio.sleep(1)
    nothing_lost(tallies)


async def test_requests_in_flight_end_well(agent: Agent, api: ScriptedApi, image: str, port: int):
    agent.configure(deploy={"drain_timeout": 30})
    api.document = document(image, port, PAGE="old")
    await agent.start()
    await agent.until_told("uptodate")
    tally = Tally("slow")
    target = Target("127.0.0.1", port, path="/slow")
    flying = [asyncio.create_task(one(tally, target)) for _ in range(30)]
    await asyncio.sleep(1)
    api.document = document(image, port, PAGE="new")
    await agent.until_told("uptodate", 2)
    await asyncio.gather(*flying)
    assert not tally.lost, tally
    assert set(tally.bodies) == {"old"}
    assert await fetch(port) == "new"


async def test_an_endless_connection_is_cut_at_drain_timeout_and_not_earlier(
    agent: Agent, api: ScriptedApi, image: str, port: int
):
    agent.configure(deploy={"drain_timeout": 4})
    api.document = document(image, port, PAGE="old")
    await agent.start()
    await agent.until_told("uptodate")
    reader, writer = await connect(Target("127.0.0.1", port))
    writer.write(b"GET /never HTTP/1.1\r\n\r\n")
    api.document = document(image, port, PAGE="new")
    await agent.until(lambda: len(agent.logged("router.pointed")) == 2, "switched")
    began = time.monotonic()
    assert await reader.read() == b""
    assert 3.5 < time.monotonic() - began < 8
    writer.close()


FAILING: dict[str, tuple[dict[str, object], str]] = {
    "exits at once": ({"DIE_AFTER": 0}, "exit code 7"),
    "exits after 1 s": ({"START": 60, "DIE_AFTER": 1}, "exit code 7"),
    "never listens": ({"START": 600}, "not ready within 3 s"),
    "unhealthy for ever": ({"HEALTHY_AFTER": 999}, "its health check says"),
    "bad command": ({}, "no such file or directory"),
    "NUL in the environment": ({"BAD": "a\0b"}, "environment_variables: BAD: must not contain"),
}


@pytest.mark.parametrize("how", FAILING)
async def test_a_release_that_fails_leaves_the_old_one_serving(
    agent: Agent,
    api: ScriptedApi,
    image: str,
    port: int,
    how: str,
    shared_registry: RunningRegistry,
    images: Images,
):
    agent.configure(deploy={"ready_timeout": 3})
    api.document = document(image, port, PAGE="old")
    await agent.start()
    await agent.until_told("uptodate")
    (old,) = agent.running()
    environment, cause = FAILING[how]
    if how == "unhealthy for ever":
        image = shared_registry.push(healthy_app(images), "sick:1")
    if how == "bad command":
        image = shared_registry.push(images.make('CMD ["/no/such"]'), "bad:1")
    async with load(Target("127.0.0.1", port), rate=50) as tallies:
        api.document = document(image, port, PAGE="new", **environment)
        await agent.until_told("error")
        await agent.until(lambda: len(agent.containers()) == 1, "candidate removed")
        await agent.until(lambda: tallies[0].sent > 10, "more requests: some fail at once")
    nothing_lost(tallies)
    assert cause in agent.last_error()
    assert set(tallies[0].bodies) == {"old"}
    assert [c["Id"] for c in agent.running()] == [old["Id"]]


TELLS_ALL = r"""
echo "cannot connect to postgres://app:$DB_PASSWORD@db/app"
i=0; while [ $i -lt $LINES_AFTER ]; do echo "  at line $i"; i=$((i+1)); done
env; exit 3
"""


@pytest.mark.parametrize("lines_after", [0, 1, 15])
async def test_a_container_that_prints_its_environment_tells_no_part_of_a_secret(
    agent: Agent,
    api: ScriptedApi,
    shared_registry: RunningRegistry,
    images: Images,
    port: int,
    lines_after: int,
):
    """The last lines of its log are cut to what a status can hold."""
    words = [secrets.token_hex(4) for _ in range(60)]
    wanted = {
        "DB_PASSWORD": "".join(words[:5]),
        "ACCOUNT_KEY": "".join(words[5:55]),
        "MULTILINE_SECRET": "\n".join(words[55:]),
    }
    program = images.make('CMD ["/bin/sh", "/tell"]', files={"/tell": TELLS_ALL})
    image = shared_registry.push(program, "tells:1")
    api.document = document(image, port, LINES_AFTER=lines_after, **wanted)
    await agent.start()
    await agent.until_told("error")
    assert "(exit code 3); last log lines: " in agent.last_error()
    status = await almagent("status", "--json", "--config", agent.config)
    shown = agent.log_file.read_text() + status.out + "".join(m for _, m in agent.statuses())
    assert [word for word in words if word in shown] == []


async def test_a_failed_release_is_tried_again_after_a_pause_and_a_new_document_at_once(
    agent: Agent, api: ScriptedApi, image: str, port: int
):
    api.document = document(image, port, PAGE="old")
    await agent.start()
    await agent.until_told("uptodate")
    api.document = document(image, port, PAGE="bad", DIE_AFTER=0)
    await agent.until_told("error")
    first = time.monotonic()
    await agent.until(lambda: len(agent.logged("release.prepared")) == 3, "tried again", 25)
    assert time.monotonic() - first > 8
    assert "keeps serving" in agent.last_error()
    api.document = document(image, port, PAGE="good")
    await agent.until_told("uptodate", 2, patience=8)
    assert await fetch(port) == "good"


async def test_a_port_of_a_foreign_process_is_refused(
    agent: Agent, api: ScriptedApi, image: str, port: int
):
    api.document = document(image, port, PAGE="old")
    await agent.start()
    await agent.until_told("uptodate")
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    taken = server.sockets[0].getsockname()[1]
    api.document = document(image, taken, PAGE="new")
    await agent.until_told("error")
    assert f"port {taken} is taken by" in agent.last_error()
    assert await fetch(port) == "old"
    server.close()
    await server.wait_closed()
    await agent.until_told("uptodate", 2, patience=30)
    assert await fetch(taken) == "new"
    assert not await answers(port, "")


async def test_a_release_that_dies_soon_is_switched_back(
    agent: Agent, api: ScriptedApi, image: str, port: int
):
    agent.configure(deploy={"bake_time": 20, "drain_timeout": 1})
    api.document = document(image, port, PAGE="old")
    await agent.start()
    await agent.until_told("uptodate")
    api.document = document(image, port, PAGE="new", DIE_AFTER=10)
    await agent.until_told("uptodate", 2)
    async with load(Target("127.0.0.1", port), rate=50) as tallies:
        await agent.until_told("error", patience=20)
        while not await answers(port, "old"):
            await asyncio.sleep(0.02)
        await asyncio.sleep(1)
    assert len(tallies[0].lost) < 100  # 2 s at 50/s
    assert "exit code 7" in agent.last_error()
    await asyncio.sleep(12)
    assert await fetch(port) == "old"
    assert len(agent.containers()) == 1
    assert agent.words()[-1] == "error"
    api.document = document(image, port, PAGE="mended")
    await agent.until_told("uptodate", 3)
    assert await fetch(port) == "mended"


async def test_changed_ports_leave_no_stale_rule(
    agent: Agent, api: ScriptedApi, image: str, port: int
):
    other = port + 1
    api.document = {**document(image, port, PORTS=f"{port} {other}"), "ports": [port, other]}
    await agent.start()
    await agent.until_told("uptodate")
    assert await fetch(other) == "one"
    api.document = document(image, other)
    await agent.until_told("uptodate", 2)
    assert await fetch(other) == "one"
    with pytest.raises(ConnectionRefusedError):
        await fetch(port)


async def test_lost_rules_and_addresses_are_mended(
    agent: Agent, api: ScriptedApi, image: str, port: int
):
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("uptodate")
    table = table_name(agent.stack_id, "Web01")
    subprocess.run(["nft", "delete", "table", "ip", table], check=True)
    began = time.monotonic()
    while not await answers(port, "one"):
        assert time.monotonic() - began < 3
    (container,) = agent.running()
    agent.engine.restart(container["Id"], timeout=1)
    began = time.monotonic()
    while not await answers(port, "one"):
        assert time.monotonic() - began < 3
    assert [c["Id"] for c in agent.containers()] == [container["Id"]]


async def test_traffic_goes_on_without_the_agent(
    agent: Agent, api: ScriptedApi, image: str, port: int
):
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("uptodate")
    async with load(Target("127.0.0.1", port), rate=50, kept=3) as tallies:
        await agent.end(9)
        await asyncio.sleep(2)
        await agent.start()
        await agent.until_told("uptodate", 2)
    nothing_lost(tallies)


async def test_recreate_publishes_by_docker_and_brings_the_old_one_back(
    agent: Agent, api: ScriptedApi, image: str, port: int
):
    agent.configure(deploy={"strategy": "recreate", "ready_timeout": 3})
    api.document = document(image, port, PAGE="old")
    await agent.start()
    await agent.until_told("uptodate")
    (old,) = agent.running()
    inspected = agent.engine.inspect_container(old["Id"])
    assert inspected["HostConfig"]["PortBindings"][f"{port}/tcp"][0]["HostPort"] == str(port)
    api.document = document(image, port, PAGE="bad", START=600)
    await agent.until_told("error")
    await agent.until(lambda: len(agent.running()) == 1, "old one back")
    assert [c["Id"] for c in agent.running()] == [old["Id"]]
    while not await answers(port, "old"):
        await asyncio.sleep(0.05)
    api.document = document(image, port, PAGE="good")
    await agent.until_told("uptodate", 2)
    assert await fetch(port) == "good"


async def test_a_kept_connection_stays_with_the_old_container_until_it_is_drained(
    agent: Agent, api: ScriptedApi, image: str, port: int
):
    api.document = document(image, port, PAGE="old")
    await agent.start()
    await agent.until_told("uptodate")
    kept = await connect(Target("127.0.0.1", port))
    assert await exchange(*kept, "/", keep=True) == "old"
    api.document = document(image, port, PAGE="new")
    await agent.until_told("uptodate", 2)
    assert await exchange(*kept, "/", keep=True) == "old"
    assert await fetch(port) == "new"
    kept[1].close()
