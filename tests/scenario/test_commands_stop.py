"""`almagent stop`, with a daemon and without one: nothing is left, and a later start deploys again."""

from __future__ import annotations

import pytest

from almagent.wiring import table_name
from tests.peers.agent import Agent, answers
from tests.peers.api import ScriptedApi
from tests.peers.apps import app
from tests.peers.command import Done, almagent
from tests.peers.images import Images
from tests.peers.leaks import nft_tables
from tests.peers.registry import RunningRegistry
from tests.scenario.releases import document


@pytest.fixture
async def serving(
    agent: Agent, api: ScriptedApi, shared_registry: RunningRegistry, images: Images, port: int
) -> Agent:
    api.document = document(shared_registry.push(app(images), "stop:1"), port)
    await agent.start()
    await agent.until_told("uptodate")
    return agent


async def check_gone(agent: Agent, container: str, port: int) -> None:
    assert agent.containers() == []
    assert agent.engine.networks(filters=agent.label) == []
    table = table_name(agent.stack_id, "Web01")
    assert not [line for line in nft_tables() if table in line]
    assert not await answers(port, "one")
    assert agent.words(container) == ["starting", "running", "terminated"]
    assert agent.words()[-1] == "stopped"
    assert agent.words().count("stopped") == 1


async def test_a_running_daemon_does_it_and_stays(agent: Agent, serving: Agent, port: int):
    (container,) = agent.running()
    stopped = await almagent("stop", "--config", agent.config)
    assert (stopped.code, stopped.err) == (0, "")
    assert stopped.out.splitlines()[-1].startswith("stopped: ")
    await check_gone(agent, container["Id"], port)

    status = (await almagent("status", "--json", "--config", agent.config)).json
    assert (status["phase"], status["active"]) == ("stopped", None)
    assert agent.process is not None
    assert agent.process.returncode is None
    again = await almagent("stop", "--config", agent.config)
    assert again.code == 0

    assert await agent.end() == 0
    await agent.start()
    await agent.until_told("uptodate", 2)
    (fresh,) = agent.running()
    assert agent.words(fresh["Id"]) == ["starting", "running"]
    assert await answers(port, "one")


async def test_without_a_daemon_it_does_it_itself(agent: Agent, serving: Agent, port: int):
    (container,) = agent.running()
    assert await agent.end() == 0
    assert await answers(port, "one")
    stopped = await almagent("stop", "--config", agent.config)
    assert (stopped.code, stopped.out.splitlines()[-1]) == (
        0,
        "stopped: this agent's containers and routes are gone",
    )
    await check_gone(agent, container["Id"], port)
    assert agent.words()[-2:] == ["uptodate", "stopped"]  # it did not register as a new one

    nothing_left: Done = await almagent("stop", "--config", agent.config)
    assert nothing_left.code == 0


async def test_what_could_not_be_reported_is_no_success(
    agent: Agent, api: ScriptedApi, serving: Agent
):
    assert await agent.end() == 0
    await api.stop()
    stopped = await almagent("stop", "--config", agent.config)
    assert stopped.code == 1
    assert stopped.out.splitlines()[-2:] == [
        "stopped: this agent's containers and routes are gone",
        "not all statuses are acknowledged yet; the next run or stop sends them",
    ]
    assert "not done" not in stopped.err
    assert agent.containers() == []
    await api.start()
    assert (await almagent("stop", "--config", agent.config)).code == 0
    assert agent.words()[-1] == "stopped"
