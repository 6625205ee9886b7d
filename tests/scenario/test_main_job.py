"""The main job: from the first call to a serving container, and kept so."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.peers.agent import SECRET, Agent, answers, fetch
from tests.peers.api import CONFIG, STATUSES, TOKEN, ScriptedApi, reply, silence
from tests.peers.apps import app
from tests.peers.images import Images
from tests.peers.registry import RunningRegistry
from tests.scenario import releases

NASTY = "a b\"c'd\n$HOME=%s\\ü€\t"


@pytest.fixture
def document(shared_registry: RunningRegistry, images: Images, port: int) -> dict[str, Any]:
    return releases.document(shared_registry.push(app(images), "app:1"), port, NASTY=NASTY)


def changed(document: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    environment = document["environment_variables"] | change.get("environment", {})
    return {**document, **change, "environment_variables": environment}


async def test_from_the_first_call_to_a_serving_container(
    agent: Agent, api: ScriptedApi, document, port: int
):
    api.document = document
    await agent.start()
    await agent.until_told("uptodate")

    calls = [(r.method, r.path) for r in api.requests]
    assert calls[:3] == [("POST", TOKEN), ("POST", STATUSES[0]), ("GET", CONFIG)]
    login = api.requests[0].json
    assert login == {
        "grant_type": "client_credentials",
        "client_id": agent.stack_id,
        "client_secret": SECRET,
    }
    registered = api.requests[1].json
    assert registered["status"] == "starting"
    assert registered["stack_id"] == agent.stack_id
    assert re.fullmatch(r"[0-9a-f-]{36}", registered["agent_id"])
    assert api.requests[2].query == {"stack_id": agent.stack_id, "flag": "Web01"}

    (container,) = agent.running()
    assert agent.statuses() == [
        ("starting", ""),
        ("installing", agent.statuses()[1][1]),
        ("starting", container["Id"]),
        ("running", container["Id"]),
        ("uptodate", ""),
    ]
    assert await fetch(port) == "one"
    inspected = agent.engine.inspect_container(container["Id"])
    environment = inspected["Config"]["Env"]
    assert f"NASTY={NASTY}" in environment
    assert f"MO_STACK_ID={agent.stack_id}" in environment
    assert "MO_USER_ID=user-1" in environment
    labels = inspected["Config"]["Labels"]
    assert labels["almagent.stack"] == agent.stack_id
    assert labels["almagent.flag"] == "Web01"
    assert labels["almagent.image"] == document["image"]
    assert container["Names"] == [f"/almagent-Web01-{labels['almagent.revision'][:8]}"]


async def test_nothing_repeats_while_nothing_changes(agent: Agent, api: ScriptedApi, document):
    api.document = document
    api.etag = '"v1"'
    await agent.start()
    await agent.until_told("uptodate")
    before = len(api.requests)
    await asyncio.sleep(5.2)
    later = api.requests[before:]
    assert {r.path for r in later} == {CONFIG}
    assert 4 <= len(later) <= 6
    assert all(r.headers["if-none-match"] == '"v1"' for r in later)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"environment": {"PAGE": "two"}}, id="environment"),
        pytest.param({"updated": 7}, id="updated"),
        pytest.param({"codeDir": "/srv/code"}, id="codeDir"),
    ],
)
async def test_a_changed_document_is_released(
    agent: Agent, api: ScriptedApi, document, port: int, change
):
    api.document = document
    await agent.start()
    await agent.until_told("uptodate")
    (old,) = agent.running()
    api.document = changed(document, change)
    await agent.until_told("uptodate", 2)
    assert await fetch(port)
    await agent.until(lambda: len(agent.containers()) == 1, "old container removed")
    (new,) = agent.running()
    assert new["Id"] != old["Id"]
    await agent.until(lambda: agent.words(old["Id"])[-1:] == ["terminated"], "old terminated")
    assert agent.words(old["Id"]) == ["starting", "running", "terminated"]
    assert agent.words(new["Id"]) == ["updating", "running"]


async def test_a_restarted_agent_leaves_what_runs_alone(agent: Agent, api: ScriptedApi, document):
    api.document = document
    await agent.start()
    await agent.until_told("uptodate")
    (before,) = agent.running()
    began = time.monotonic()
    assert await agent.end(signal.SIGTERM) == 0
    assert time.monotonic() - began < 5
    assert [c["Id"] for c in agent.running()] == [before["Id"]]
    told = len(agent.statuses())
    await agent.start()
    await agent.until_told("uptodate", 2)
    await asyncio.sleep(1.5)
    assert agent.statuses()[told:] == [("starting", ""), ("uptodate", "")]
    assert [c["Id"] for c in agent.containers()] == [before["Id"]]


async def test_a_started_agent_registers_before_it_tells_what_it_found(
    agent: Agent, api: ScriptedApi, document
):
    """The first contact comes later than the first look."""
    agent.settings["api"] = {"start_splay": 10}
    api.document = document
    await agent.start()
    await agent.until_told("uptodate")
    assert await agent.end() == 0
    (before,) = agent.running()
    agent.engine.restart(before["Id"], timeout=0)
    told = len(agent.statuses())
    await agent.start()
    await agent.until_told("uptodate", 2)
    words = [word for word, _ in agent.statuses()[told:]]
    assert words == ["starting", "restarting", "running", "uptodate"]


@pytest.mark.parametrize("how", ["kill", "remove", "exit", "pause"])
async def test_a_lost_container_is_back_within_five_seconds(
    agent: Agent, api: ScriptedApi, document, port: int, how: str
):
    api.document = document
    await agent.start()
    await agent.until_told("uptodate")
    (lost,) = agent.running()
    if how == "kill":
        agent.engine.kill(lost["Id"])
    elif how == "remove":
        agent.engine.remove_container(lost["Id"], force=True)
    elif how == "pause":
        agent.engine.pause(lost["Id"])
    else:
        task = agent.engine.exec_create(lost["Id"], ["touch", "/tmp/die"])
        agent.engine.exec_start(task["Id"])
    began = time.monotonic()
    await agent.until_told("running", 2, patience=5)
    while not await answers(port, "one"):
        assert time.monotonic() - began < 5
        await asyncio.sleep(0.05)
    words = [word for word, _ in agent.statuses()][5:]
    assert words[0] == "restarting"
    assert words[-1] == "running"
    assert len(agent.containers()) == 1


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "image": ({"image": "127.0.0.1:1/no/such:1"}, "127.0.0.1:1/no/such:1"),
    "repository": ({"gitRepo": "https://127.0.0.1:1/no.git"}, "127.0.0.1:1/no.git"),
    "type": ({"ports": "many"}, "ports"),
    "no image": ({"image": None}, "image"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_bad_document_is_an_error_and_nothing_is_touched(
    agent: Agent, api: ScriptedApi, document, port: int, fault: str
):
    api.document = document
    await agent.start()
    await agent.until_told("uptodate")
    (before,) = agent.running()
    change, named = FAULTS[fault]
    api.document = {**document, **change}
    await agent.until_told("error")
    assert named in agent.last_error()
    assert "\n" not in agent.last_error()
    await asyncio.sleep(2.5)
    assert [word for word, _ in agent.statuses()].count("error") == 1
    assert [c["Id"] for c in agent.containers()] == [before["Id"]]
    assert await fetch(port) == "one"
    api.document = document
    await agent.until_told("uptodate", 2)
    assert [c["Id"] for c in agent.containers()] == [before["Id"]]
    assert "Traceback" not in agent.log_file.read_text()


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null"], ids=repr)
async def test_nothing_defined_means_keep(
    agent: Agent, api: ScriptedApi, document, port: int, body: bytes
):
    api.document = document
    await agent.start()
    await agent.until_told("uptodate")
    api.always(CONFIG, reply(200, body))
    await agent.until_told("notice")
    await asyncio.sleep(2.2)
    assert [word for word, _ in agent.statuses()][5:] == ["notice"]
    assert await fetch(port) == "one"


async def test_that_nothing_is_defined_is_told_each_time_it_begins(
    agent: Agent, api: ScriptedApi, document
):
    def told(times: int) -> Callable[[], bool]:
        return lambda: [word for word, _ in agent.statuses()].count("notice") == times

    def asked_again(since: int) -> Callable[[], bool]:
        return lambda: len(api.requests) > since + 1

    api.document = document
    await agent.start()
    await agent.until_told("uptodate")
    for times in (1, 2):
        api.always(CONFIG, reply(200, b"{}"))
        await agent.until(told(times), "a notice")
        api.always(CONFIG, None)
        await agent.until(asked_again(len(api.requests)), "the document again")
    assert len(agent.containers()) == 1


@pytest.mark.parametrize(
    ("path", "behaviour"),
    [
        pytest.param(TOKEN, reply(401), id="wrong secret"),
        pytest.param(CONFIG, reply(500), id="500"),
        pytest.param(CONFIG, reply(200, b"<html>"), id="HTML"),
    ],
)
async def test_a_failing_api_is_survived_and_told(
    agent: Agent, api: ScriptedApi, document, port: int, path: str, behaviour
):
    api.document = document
    api.always(path, behaviour)
    await agent.start()
    await agent.until(lambda: agent.logged("poll.failed"), "a log event")
    if path == CONFIG:
        await agent.until_told("error")
    before = len(api.requests)
    await asyncio.sleep(2)
    assert len(api.requests) - before <= 8  # no storm
    api.always(path, None)
    await agent.until_told("uptodate", patience=30)
    assert await fetch(port) == "one"
    assert "Traceback" not in agent.log_file.read_text()


async def test_once_tells_by_its_exit_code(agent: Agent, api: ScriptedApi, document):
    api.document = document
    await agent.start("--once")
    assert agent.process is not None
    assert await asyncio.wait_for(agent.process.wait(), 20) == 0
    assert len(agent.running()) == 1
    assert agent.words()[-1] == "uptodate"
    api.document = {**document, "image": "127.0.0.1:1/no/such:1"}
    await agent.start("--once")
    assert await asyncio.wait_for(agent.process.wait(), 30) == 1
    assert "no/such" in agent.logged("once.failed")[-1]["reason"]
    word, message = agent.statuses()[-1]
    assert word == "error"
    assert "no/such" in message
    assert len(agent.running()) == 1


async def test_once_that_is_cut_short_does_not_say_that_it_converged(
    agent: Agent, api: ScriptedApi
):
    api.always(CONFIG, silence())
    await agent.start("--once")
    await agent.until(lambda: api.asked(CONFIG), "asked")
    assert await agent.end() == 1


async def test_once_waits_for_a_document_that_comes_late(
    agent: Agent, api: ScriptedApi, document: dict[str, object]
):
    api.document = document
    # When the document comes, the agent has already looked, and found nothing to do.
    api.script(STATUSES[0], reply(202, delay=2))
    await agent.start("--once")
    assert agent.process is not None
    assert await asyncio.wait_for(agent.process.wait(), 20) == 0
    assert len(agent.running()) == 1
