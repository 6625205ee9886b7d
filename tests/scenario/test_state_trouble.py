"""A disk that refuses, a state that is damaged, a second agent: what runs is never harmed by it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.agent import Agent, fetch
from tests.peers.api import ScriptedApi
from tests.scenario.releases import document


@pytest.fixture
def small_disk(agent: Agent) -> Iterator[Path]:
    with agent.small_disk(2) as state:
        yield state


async def test_a_second_agent_leaves_at_once_and_touches_nothing(
    agent: Agent, api: ScriptedApi, image: str, port: int
):
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("uptodate")
    first = agent.process
    assert first is not None
    calls = len(api.requests)
    began = time.monotonic()
    await agent.start()
    assert agent.process is not None
    assert await agent.process.wait() == 1
    assert time.monotonic() - began < 3  # most of it is the start of the interpreter
    assert f"process {first.pid} holds it" in agent.logged("agent.not_started")[0]["reason"]
    assert {request.path for request in api.requests[calls:]} <= {"/v3/alm/agent/config"}
    agent.process = first
    assert await fetch(port) == "one"


@pytest.mark.parametrize("trouble", ["full", "read-only"])
async def test_a_disk_that_refuses_costs_no_traffic(
    agent: Agent, api: ScriptedApi, image: str, port: int, small_disk: Path, trouble: str
):
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("uptodate")
    (before,) = agent.running()
    await agent.end()
    filler = small_disk / "filler"
    if trouble == "full":
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(4096))
    else:
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    told = len(agent.statuses())
    await agent.start()
    await agent.until_told("uptodate", 2)
    assert [word for word, _ in agent.statuses()[told:]] == ["starting", "uptodate"]
    await agent.until(lambda: agent.logged("store.failed"), "it says so")
    assert [c["Id"] for c in agent.containers()] == [before["Id"]]
    agent.engine.kill(before["Id"])
    await agent.until_told("running", 2)
    if trouble == "full":
        filler.unlink()
    else:
        subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    agent.engine.kill(before["Id"])
    await agent.until_told("running", 3)
    await agent.until(lambda: agent.logged("store.recovered"), "it recovers")
    assert len(agent.logged("store.failed")) == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", json.dumps({"version": 99}).encode(), json.dumps({"version": 1}).encode()],
    ids=["empty", "cut", "list", "future", "hollow"],
)
async def test_a_damaged_state_starts_nothing_anew(
    agent: Agent, api: ScriptedApi, image: str, port: int, content: bytes
):
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("uptodate")
    (before,) = agent.running()
    await agent.end()
    (agent.directory / "state" / "state.json").write_bytes(content)
    told = len(agent.statuses())
    await agent.start()
    await agent.until_told("uptodate", 2)
    await asyncio.sleep(0.5)
    assert [word for word, _ in agent.statuses()[told:]] == ["starting", "running", "uptodate"]
    assert [c["Id"] for c in agent.containers()] == [before["Id"]]
    assert before["State"] == "running"
