"""A registry or a git server that hangs never delays what matters: repair, stop, notice, newer document."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.peers.agent import Agent, fetch
from tests.peers.api import ScriptedApi
from tests.scenario.releases import document


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield listener.getsockname()[1]


HANGING: dict[str, dict[str, str]] = {
    "registry": {"image": "127.0.0.1:{port}/app:1"},
    "https": {"gitRepo": "https://127.0.0.1:{port}/app.git"},
    "ssh": {"gitRepo": "ssh://git@127.0.0.1:{port}/app.git"},
}


def hanging(which: str, wanted: dict[str, Any], port: int) -> dict[str, Any]:
    return {**wanted, **{key: text.format(port=port) for key, text in HANGING[which].items()}}


@pytest.mark.parametrize("which", HANGING)
async def test_what_serves_is_repaired_and_the_agent_stops_in_time(
    agent: Agent, api: ScriptedApi, image: str, port: int, silent: int, which: str
):
    wanted = document(image, port)
    api.document = wanted
    await agent.start()
    await agent.until_told("uptodate")
    api.document = hanging(which, wanted, silent)
    await agent.until_told("installing", 2)
    await asyncio.sleep(1)
    (container,) = agent.running()
    agent.engine.kill(container["Id"])
    await agent.until_told("running", 2, patience=5)
    assert await fetch(port) == "one"
    began = time.monotonic()
    assert await agent.end() == 0
    assert time.monotonic() - began < 5
    assert await fetch(port) == "one"


async def test_a_newer_document_does_not_wait_for_an_older_one(
    agent: Agent, api: ScriptedApi, image: str, port: int, silent: int
):
    wanted = document(image, port)
    api.document = hanging("registry", wanted, silent)
    await agent.start()
    await agent.until_told("installing")
    await asyncio.sleep(1)
    api.document = wanted
    await agent.until_told("uptodate", patience=6)
    assert await fetch(port) == "one"
    await asyncio.sleep(1)
    assert len(agent.containers()) == 1
