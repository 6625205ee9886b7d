"""The cloud takes the instance: noticed in time, drained inside the deadline, told once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests.peers.agent import Agent, fetch
from tests.peers.api import STATUSES, ScriptedApi, reply
from tests.peers.command import almagent
from tests.peers.load import Tally, Target, load, one
from tests.peers.metadata import AwsPeer, Fault, Reply
from tests.scenario.releases import document


@pytest.fixture
async def cloud(agent: Agent) -> AsyncIterator[AwsPeer]:
    async with AwsPeer() as peer:
        agent.configure(cloud={"provider": "aws", "endpoint": peer.url, "poll_interval": 0.5})
        yield peer


def words_after(agent: Agent, count: int) -> list[str]:
    return [word for word, _ in agent.statuses()][count:]


@pytest.mark.parametrize("deadline", [120, 30, 5, -10])
async def test_a_spot_notice_drains_inside_its_deadline(
    agent: Agent, api: ScriptedApi, cloud: AwsPeer, image: str, port: int, deadline: int
):
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("uptodate")
    assert api.requests[1].json["instance_id"] == cloud.instance_id
    before = len(agent.statuses())
    slow = Tally("in flight")
    flying: list[asyncio.Task[None]] = []
    if deadline > 20:
        flying = [
            asyncio.create_task(one(slow, Target("127.0.0.1", port, path="/slow")))
            for _ in range(9)
        ]
        await asyncio.sleep(0.5)
    began = time.monotonic()
    await cloud.put(cloud.spot, cloud.notice(deadline))
    await agent.until_told("spot_terminate", patience=1.5)
    if deadline > 20:
        await agent.until(lambda: agent.logged("router.pointed")[-1]["ports"] == [], "closed", 5)
        with pytest.raises(ConnectionRefusedError):
            await fetch(port)
        await asyncio.gather(*flying)
        assert not slow.lost, slow
    await agent.until_told("terminated")
    assert time.monotonic() - began < max(deadline - 10, 5)
    assert words_after(agent, before) == ["spot_terminate", "terminated"]
    await agent.until(lambda: not agent.containers(), "container removed", 3)
    await asyncio.sleep(1.5)
    assert words_after(agent, before) == ["spot_terminate", "terminated"]


async def test_a_kept_connection_is_not_cut_while_the_budget_lasts(
    agent: Agent, api: ScriptedApi, cloud: AwsPeer, image: str, port: int
):
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("uptodate")
    async with load(Target("127.0.0.1", port), rate=20, kept=3) as tallies:
        await asyncio.sleep(1)
        await cloud.put(cloud.spot, cloud.notice(24))
        await agent.until_told("spot_terminate")
        await asyncio.sleep(4)
        assert not tallies[1].lost
        assert tallies[0].lost  # new ones are refused at once
    await agent.until_told("terminated", patience=20)


async def test_plan_knows_that_nothing_is_to_run_here_any_more(
    agent: Agent, api: ScriptedApi, cloud: AwsPeer, image: str, port: int
):
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("uptodate")
    await cloud.put(cloud.spot, cloud.notice(60))
    await agent.until_told("terminated")
    await agent.until(lambda: not agent.containers(), "container removed", 3)
    plan = await almagent("plan", "--json", "--config", agent.config)
    assert (plan.code, plan.err, plan.json["steps"]) == (0, "", [])
    assert plan.json["why"].startswith("this instance is going away: ")


async def test_a_notice_in_the_middle_of_a_release_gives_the_candidate_up(
    agent: Agent, api: ScriptedApi, cloud: AwsPeer, image: str, port: int
):
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("uptodate")
    api.document = document(image, port, PAGE="new", START=60)
    await agent.until_told("updating")
    await cloud.put(cloud.spot, cloud.notice(60))
    await agent.until_told("spot_terminate")
    await agent.until(lambda: not agent.containers(), "everything gone")
    await agent.until_told("terminated", 2)
    assert "uptodate" not in words_after(agent, 7)


async def test_killed_in_the_middle_of_a_drain_it_goes_on(
    agent: Agent, api: ScriptedApi, cloud: AwsPeer, image: str, port: int
):
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("uptodate")
    slow = Tally("in flight")
    flying = asyncio.create_task(one(slow, Target("127.0.0.1", port, path="/slow")))
    await asyncio.sleep(0.5)
    await cloud.put(cloud.spot, cloud.notice(60))
    await agent.until(lambda: agent.logged("router.pointed")[-1]["ports"] == [], "closed", 5)
    await agent.end(9)
    await agent.start()
    await flying
    assert not slow.lost
    await agent.until_told("terminated")
    assert [w for w, _ in agent.statuses()].count("spot_terminate") == 1
    await agent.until(lambda: not agent.containers(), "container removed", 3)


async def test_a_notice_is_the_first_thing_said_after_an_outage(
    agent: Agent, api: ScriptedApi, cloud: AwsPeer, image: str, port: int
):
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("uptodate")
    for path in STATUSES:
        api.always(path, reply(503))
    (container,) = agent.running()
    agent.engine.kill(container["Id"])
    await agent.until(lambda: agent.logged("reports.delayed"), "posts fail")
    await cloud.put(cloud.spot, cloud.notice(60))
    await agent.until(lambda: agent.logged("agent.leaving"), "noticed")
    count = len(agent.statuses())
    for path in STATUSES:
        api.always(path, None)
    await agent.until(lambda: "terminated" in words_after(agent, count), "all told")
    assert words_after(agent, count)[0] == "spot_terminate"


async def test_no_answer_is_no_notice(
    agent: Agent, api: ScriptedApi, cloud: AwsPeer, image: str, port: int
):
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("uptodate")
    faults = (Reply(401), Reply(403), Reply(500), Reply(200, "<html>"), Fault.RESET)
    for fault in faults:
        cloud.faults[cloud.spot] = fault
        await asyncio.sleep(0.7)
    assert agent.words()[-1] == "uptodate"
    assert await fetch(port) == "one"
