"""The program of the image that runs before its container is stopped for good."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable

import pytest

from tests.peers import apps
from tests.peers.agent import Agent
from tests.peers.api import ScriptedApi
from tests.peers.images import Images
from tests.peers.metadata import AwsPeer
from tests.peers.registry import RunningRegistry
from tests.scenario.releases import document

HOOK = "/pre_shutdown.sh"


@pytest.fixture
def image_with(shared_registry: RunningRegistry, images: Images) -> Callable[..., str]:
    def push(**hooks: str) -> str:
        """An image with these programs in its root directory."""
        files = {f"/{name}.sh": f"#!/bin/sh\n{text}\n" for name, text in hooks.items()}
        command = 'CMD ["/usr/bin/perl", "/server.pl"]'
        return shared_registry.push(
            images.make(command, files={**apps.files(), **files}), f"hooked:{secrets.token_hex(4)}"
        )

    return push


@pytest.fixture
async def cloud(agent: Agent) -> AsyncIterator[AwsPeer]:
    async with AwsPeer() as peer:
        agent.configure(cloud={"provider": "aws", "endpoint": peer.url, "poll_interval": 0.5})
        yield peer


async def leave(
    agent: Agent, api: ScriptedApi, cloud: AwsPeer, image: str, port: int, seconds: float
) -> float:
    """Seconds from the notice to the end of all containers, all told."""
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("uptodate")
    began = time.monotonic()
    await cloud.put(cloud.spot, cloud.notice(seconds))
    await agent.until_told("spot_terminate", patience=1.5)
    await agent.until_told("terminated")
    await agent.until(lambda: not agent.containers(), "container removed", 3)
    return time.monotonic() - began


def position(agent: Agent, event: str) -> int:
    return [entry["event"] for entry in agent.log()].index(event)


def closed(agent: Agent) -> int:
    """Where in the log the ports were taken away."""
    pointed = [
        n
        for n, entry in enumerate(agent.log())
        if entry["event"] == "router.pointed" and not entry["ports"]
    ]
    return pointed[0]


async def test_its_output_is_in_the_log_and_the_ports_are_open_while_it_runs(
    agent: Agent, api: ScriptedApi, cloud: AwsPeer, image_with: Callable[..., str], port: int
):
    image = image_with(pre_shutdown="echo farewell of $PAGE; echo from $MO_STACK_ID >&2")
    await leave(agent, api, cloud, image, port, 60)
    (ran,) = agent.logged("hook.ran")
    assert ran["path"] == HOOK
    assert sorted(ran["output"].splitlines()) == ["farewell of one", f"from {agent.stack_id}"]
    assert position(agent, "hook.ran") < closed(agent)


async def test_one_that_hangs_does_not_cost_the_deadline(
    agent: Agent, api: ScriptedApi, cloud: AwsPeer, image_with: Callable[..., str], port: int
):
    image = image_with(pre_shutdown="trap '' TERM INT; echo begun; sleep 1000; echo never")
    assert await leave(agent, api, cloud, image, port, 24) < 24 - 10 + 1
    (ran,) = agent.logged("hook.ran")
    assert ran["output"] == "begun"
    assert agent.logged("hook.timed_out")[0]["deadline_s"] <= 7


async def test_one_that_fails_holds_nothing_up(
    agent: Agent, api: ScriptedApi, cloud: AwsPeer, image_with: Callable[..., str], port: int
):
    image = image_with(pre_shutdown="echo cannot deregister; exit 3")
    assert await leave(agent, api, cloud, image, port, 60) < 10
    assert agent.logged("hook.ended")[0]["exit_code"] == 3
    assert agent.logged("hook.ran")[0]["output"] == "cannot deregister"


async def test_another_path_can_be_set_and_a_missing_program_is_skipped(
    agent: Agent, api: ScriptedApi, cloud: AwsPeer, image_with: Callable[..., str], port: int
):
    agent.configure(cloud={"pre_shutdown": "/elsewhere.sh"})
    image = image_with(pre_shutdown="echo not this one")
    assert await leave(agent, api, cloud, image, port, 60) < 10
    assert [e["event"] for e in agent.log() if e["event"].startswith("hook.")] == []


async def test_it_runs_once_although_the_agent_is_killed_after_it(
    agent: Agent, api: ScriptedApi, cloud: AwsPeer, image_with: Callable[..., str], port: int
):
    image = image_with(pre_shutdown="echo farewell")
    api.document = document(image, port)
    await agent.start(env={"ALMAGENT_FAILPOINT": "RunHook"})
    await agent.until_told("uptodate")
    await cloud.put(cloud.spot, cloud.notice(60))
    assert agent.process is not None
    assert await agent.process.wait() == -9
    await agent.start()
    await agent.until_told("terminated")
    assert len(agent.logged("hook.ran")) == 1
    assert [word for word, _ in agent.statuses()].count("spot_terminate") == 1
