"""An agent that comes back with other settings: what its former self left on the host is in nobody's way."""

from __future__ import annotations

import asyncio
import signal
import subprocess

from almagent.wiring import table_name
from tests.peers.agent import Agent, answers, fetch
from tests.peers.api import STATUSES, ScriptedApi, reply
from tests.peers.load import Target, load
from tests.scenario.releases import HOST, document, outside


def has_rules(stack_id: str, flag: str) -> bool:
    command = ["nft", "list", "table", "ip", table_name(stack_id, flag)]
    listing = subprocess.run(command, check=False, capture_output=True, text=True)
    return "dport" in listing.stdout


async def again_with(agent: Agent, strategy: str) -> None:
    await agent.end()
    agent.configure(deploy={"strategy": strategy})
    await agent.start()


async def test_another_strategy_and_back(agent: Agent, api: ScriptedApi, image: str, port: int):
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("uptodate")
    await again_with(agent, "recreate")
    await agent.until(lambda: not has_rules(agent.stack_id, "Web01"), "no rules any more")
    await agent.until_told("uptodate", 2)
    assert await fetch(port) == "one"
    with outside() as there:
        target = Target(HOST, port, there.machine.path)
        async with load(target, rate=50, kept=3) as tallies:
            await again_with(agent, "switch")
            await agent.until(lambda: has_rules(agent.stack_id, "Web01"), "routed")
            api.document = document(image, port, PAGE="two")
            await agent.until(lambda: "two" in tallies[0].bodies, "switched")
    for tally in tallies:
        assert not tally.lost, tally


async def serve_then_end(agent: Agent, api: ScriptedApi, image: str, port: int) -> str:
    """The container that it leaves."""
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("uptodate")
    (former,) = agent.running()
    await agent.end()
    return str(former["Id"])


def give_flag(agent: Agent, flag: str) -> None:
    agent.flag = flag
    agent.configure()


async def assert_serves_as(agent: Agent, flag: str) -> None:
    """After another release, by one container alone."""
    await agent.until_told("uptodate", 2)
    (container,) = agent.containers()
    assert container["Names"][0].startswith(f"/almagent-{flag}-")


async def drain(agent: Agent, port: int) -> asyncio.StreamWriter:
    """Start it with another flag; what served the former one does not end before the connection that is given."""
    give_flag(agent, "Web02")
    _, kept = await asyncio.open_connection("127.0.0.1", port)
    await agent.start()
    await agent.until(lambda: not has_rules(agent.stack_id, "Web01"), "drains")
    return kept


async def test_another_flag(agent: Agent, api: ScriptedApi, image: str, port: int):
    """What served the former one leaves; its rules would keep the traffic from the new one."""
    former = await serve_then_end(agent, api, image, port)
    give_flag(agent, "Web02")
    api.document = document(image, port, PAGE="other")
    await agent.start()
    await assert_serves_as(agent, "Web02")
    assert await answers(port, "other")
    assert not has_rules(agent.stack_id, "Web01")
    assert agent.words(former)[-1] == "terminated"
    assert agent.words()[-4:] == ["stopped", "starting", "installing", "uptodate"]


async def test_another_role_when_nothing_can_be_said_of_the_former_one(
    agent: Agent, api: ScriptedApi, image: str, port: int
):
    await serve_then_end(agent, api, image, port)
    for path in STATUSES:
        api.always(path, reply(403))  # the new credentials are not valid for the former role
    give_flag(agent, "Web02")
    api.document = document(image, port, PAGE="other")
    await agent.start()
    await agent.until(lambda: agent.logged("agent.former_role_untold"), "given up")
    for path in STATUSES:
        api.always(path, None)
    await assert_serves_as(agent, "Web02")
    assert await answers(port, "other")


async def test_a_signal_while_the_former_self_leaves(
    agent: Agent, api: ScriptedApi, image: str, port: int
):
    """It ends in good order, and the next start goes on where it was."""
    agent.configure(deploy={"drain_timeout": 60})
    former = await serve_then_end(agent, api, image, port)
    kept = await drain(agent, port)
    assert await agent.end() == 0
    assert agent.logged("stop.interrupted")
    assert [c["Id"] for c in agent.running()] == [former]
    kept.close()
    await agent.start()
    await assert_serves_as(agent, "Web02")


async def test_a_reload_while_the_former_self_leaves(
    agent: Agent, api: ScriptedApi, image: str, port: int
):
    """It is done after that."""
    agent.configure(deploy={"drain_timeout": 60})
    await serve_then_end(agent, api, image, port)
    kept = await drain(agent, port)
    give_flag(agent, "Web03")
    assert agent.process is not None
    agent.process.send_signal(signal.SIGHUP)
    await agent.until(lambda: agent.logged("agent.not_reloaded"), "put off")
    kept.close()
    await assert_serves_as(agent, "Web03")
