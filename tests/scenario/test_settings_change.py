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


async def test_another_flag(agent: Agent, api: ScriptedApi, image: str, port: int):
    """What served the former one leaves; its rules would keep the traffic from the new one."""
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("uptodate")
    (former,) = agent.running()
    await agent.end()
    agent.flag = "Web02"
    agent.configure()
    api.document = document(image, port, PAGE="other")
    await agent.start()
    await agent.until_told("uptodate", 2)
    assert await answers(port, "other")
    (container,) = agent.containers()
    assert container["Names"][0].startswith("/almagent-Web02-")
    assert not has_rules(agent.stack_id, "Web01")
    assert agent.words(former["Id"])[-1] == "terminated"
    assert agent.words()[-4:] == ["stopped", "starting", "installing", "uptodate"]


async def test_another_role_when_nothing_can_be_said_of_the_former_one(
    agent: Agent, api: ScriptedApi, image: str, port: int
):
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("uptodate")
    await agent.end()
    for path in STATUSES:
        api.always(path, reply(403))  # the new credentials are not valid for the former role
    agent.flag = "Web02"
    agent.configure()
    api.document = document(image, port, PAGE="other")
    await agent.start()
    await agent.until(lambda: agent.logged("agent.former_role_untold"), "given up")
    for path in STATUSES:
        api.always(path, None)
    await agent.until_told("uptodate", 2)
    assert await answers(port, "other")
    (container,) = agent.containers()
    assert container["Names"][0].startswith("/almagent-Web02-")


async def test_a_signal_while_the_former_self_leaves(
    agent: Agent, api: ScriptedApi, image: str, port: int
):
    """It ends in good order, and the next start goes on where it was."""
    agent.configure(deploy={"drain_timeout": 60})
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("uptodate")
    (former,) = agent.running()
    await agent.end()
    agent.flag = "Web02"
    agent.configure()
    _, kept = await asyncio.open_connection("127.0.0.1", port)
    await agent.start()
    await agent.until(lambda: not has_rules(agent.stack_id, "Web01"), "drains")
    assert await agent.end() == 0
    assert agent.logged("stop.interrupted")
    assert [c["Id"] for c in agent.running()] == [former["Id"]]
    kept.close()
    await agent.start()
    await agent.until_told("uptodate", 2)
    (container,) = agent.containers()
    assert container["Names"][0].startswith("/almagent-Web02-")


async def test_a_reload_while_the_former_self_leaves(
    agent: Agent, api: ScriptedApi, image: str, port: int
):
    agent.configure(deploy={"drain_timeout": 60})
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("uptodate")
    await agent.end()
    agent.flag = "Web02"
    agent.configure()
    _, kept = await asyncio.open_connection("127.0.0.1", port)
    await agent.start()
    await agent.until(lambda: not has_rules(agent.stack_id, "Web01"), "drains")
    agent.flag = "Web03"
    agent.configure()
    assert agent.process is not None
    agent.process.send_signal(signal.SIGHUP)
    await agent.until(lambda: agent.logged("agent.not_reloaded"), "put off")
    kept.close()
    await agent.until_told("uptodate", 2)
    (container,) = agent.containers()
    assert container["Names"][0].startswith("/almagent-Web03-")
