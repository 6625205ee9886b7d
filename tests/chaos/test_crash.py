"""kill -9 after every action of a release: the next start ends where an undisturbed run would have."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from itertools import groupby
from pathlib import Path

import pytest

from almagent.core import actions
from almagent.failpoints import VARIABLE
from almagent.wiring import table_name
from tests.peers.agent import Agent, answers, fetch
from tests.peers.api import ScriptedApi
from tests.peers.load import Tally, Target, one
from tests.scenario.releases import document

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "1"))

# every action that a release, an update that fails and one that is switched back consist of
UPDATE = ["Prepare", "Create", "Start", "Watch", "Switch", "Terminate", "Kill", "Remove", "Collect"]
FIRST = ["Prepare", "Create", "Start", "Watch", "Switch", "KeepRestarting"]
BAD = ["Discard", "Reject"]


def test_every_failpoint_is_the_name_of_an_action():
    assert {*UPDATE, *FIRST, *BAD} <= {kind.__name__ for kind in actions.Action.__args__}


async def crash(agent: Agent, point: str) -> None:
    """The agent ends itself right after that action."""
    await agent.start(env={VARIABLE: point})
    assert agent.process is not None
    assert await asyncio.wait_for(agent.process.wait(), 40) == -9


async def settled(agent: Agent) -> None:
    """One container, nothing else of ours on the host."""
    await agent.until(lambda: len(agent.containers()) == 1, "one container", 30)
    (container,) = agent.running()
    name, logs = container["Names"][0].lstrip("/"), agent.directory / "state" / "logs"
    await agent.until(lambda: [p.name for p in logs.iterdir()] == [name], "one log directory", 5)
    assert not [p for p in (agent.directory / "run").iterdir() if "key" in p.name]
    table = table_name(agent.stack_id, "Web01")
    rules = subprocess.run(
        ["nft", "list", "table", "ip", table], check=True, capture_output=True, text=True
    ).stdout
    address = next(iter(container["NetworkSettings"]["Networks"].values()))["IPAddress"]
    doors = {f"{row['IP']}:{row['PublicPort']}" for row in container["Ports"] if "IP" in row}
    assert set(re.findall(r"dnat to (\S+)", rules)) == {address, *doors}


async def told_once(agent: Agent) -> None:
    """Each status of a container arrived once and in order, nothing after `terminated`.

    But for the one whose 2xx may have been on its way at the kill: it is sent again, before any other.
    """
    alive = {c["Id"] for c in agent.containers()}
    ended = {about for _, about in agent.statuses() if len(about) == 64} - alive
    await agent.until(lambda: all("terminated" in agent.words(c) for c in ended), "ends told")
    told = [status for status in agent.statuses() if len(status[1]) == 64]
    once = [status for status, _ in groupby(told)]
    assert len(told) - len(once) <= 1, told
    for container in {about for _, about in once}:
        words = [word for word, about in once if about == container]
        assert len(words) == len(set(words)), words
        order = ["starting", "updating", "running", "terminated"]
        assert [order.index(word) for word in words] == sorted(order.index(w) for w in words)


@pytest.mark.parametrize("point", FIRST * ROUNDS)
async def test_killed_in_the_first_release(
    agent: Agent, api: ScriptedApi, image: str, port: int, point: str
):
    api.document = document(image, port)
    await crash(agent, point)
    await agent.start()
    await agent.until_told("uptodate")
    assert await fetch(port) == "one"
    await settled(agent)
    await told_once(agent)


@pytest.mark.parametrize("point", UPDATE * ROUNDS)
async def test_killed_in_an_update(
    agent: Agent, api: ScriptedApi, image: str, port: int, point: str
):
    agent.configure(deploy={"bake_time": 1, "drain_timeout": 1, "stop_timeout": 1})
    first = document(image, port, PAGE="old", IGNORE_TERM=1)
    api.document = first
    await agent.start()
    await agent.until_told("uptodate")
    await agent.end()
    api.document = document(image, port, PAGE="new")
    tally = Tally("port")
    watching = asyncio.create_task(watch(tally, port))
    await crash(agent, point)
    await agent.start()
    await agent.until_told("running", 2)
    while not await answers(port, "new"):
        await asyncio.sleep(0.05)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert not tally.lost, tally
    await settled(agent)
    await agent.until(lambda: agent.words()[-1] == "uptodate", "uptodate")
    await told_once(agent)


async def watch(tally: Tally, port: int) -> None:
    while True:
        await one(tally, Target("127.0.0.1", port))
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("point", ["Discard"] * ROUNDS)
async def test_killed_when_a_release_fails(
    agent: Agent, api: ScriptedApi, image: str, port: int, point: str
):
    api.document = document(image, port, PAGE="old")
    await agent.start()
    await agent.until_told("uptodate")
    await agent.end()
    (old,) = agent.running()
    api.document = document(image, port, PAGE="bad", DIE_AFTER=0)
    await crash(agent, point)
    await agent.start()
    await agent.until_told("error")
    assert [c["Id"] for c in agent.running()] == [old["Id"]]
    assert await fetch(port) == "old"


@pytest.mark.parametrize("point", ["Revert"] * ROUNDS)
async def test_killed_when_a_release_is_switched_back(
    agent: Agent, api: ScriptedApi, image: str, port: int, point: str
):
    agent.configure(deploy={"bake_time": 15, "drain_timeout": 1})
    api.document = document(image, port, PAGE="old")
    await agent.start()
    await agent.until_told("uptodate")
    await agent.end()
    (old,) = agent.running()
    api.document = document(image, port, PAGE="bad", DIE_AFTER=3)
    await crash(agent, point)
    await agent.start()
    await agent.until_told("error")
    while not await answers(port, "old"):
        await asyncio.sleep(0.05)
    await agent.until(lambda: len(agent.containers()) == 1, "bad one removed")
    assert [c["Id"] for c in agent.running()] == [old["Id"]]


async def test_lost_memory_leaves_what_serves_alone(
    agent: Agent, api: ScriptedApi, image: str, port: int
):
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("uptodate")
    (before,) = agent.running()
    await agent.end()
    state: Path = agent.directory / "state" / "state.json"
    state.write_bytes(b"garbage")
    await agent.start()
    await agent.until_told("uptodate", 2)
    assert [c["Id"] for c in agent.containers()] == [before["Id"]]
    assert await fetch(port) == "one"
    assert list(state.parent.glob("state.json.corrupt*"))
