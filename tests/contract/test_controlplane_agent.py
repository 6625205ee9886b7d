"""The Alm-Agent endpoints: documents, ETags, status calls, and what they do to the stack."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.peers.controlplane import AgentApi, Api, running_control_plane

CONTAINER = {
    "image": "registry.example/app:1",
    "environment_variables": {"Stage": "_development", "UNICODE": "ä€😀"},
    "gitReference": "master",
    "gitPrivateKey": "-----BEGIN PRIVATE ...\n-----END PRIVATE KEY-----\n",
    "gitRepo": "https://git.example/site.git",
    "ports": [80, 443],
    "something_new": {"kept": [True, None, 1.5]},
}
START = 1_700_000_000  # seconds since the epoch


class Clock:
    def __init__(self) -> None:
        self.now = float(START)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def api(tmp_path, clock):
    async with running_control_plane(tmp_path, now=clock) as api:
        yield api


def template(container: Any = CONTAINER, **layer: Any) -> dict[str, Any]:
    return {"configurations": [{"flag": "Web01", "container": container, **layer}]}


@pytest.fixture
async def agent(api):
    """A stack and a function that asks for its document."""
    return await api.agent(template())


async def test_the_container_section_passes_through_with_updated_added(agent):
    answer = await agent.config("Web01")
    assert answer.status == 200
    assert answer.content_type == "application/json"
    assert answer.json == {**CONTAINER, "updated": START}


async def test_updated_is_left_alone_where_the_template_gives_one(api):
    for name in ("updated", "container_updated"):
        agent = await api.agent(template({"image": "x", name: 1492161755}))
        assert (await agent.config("Web01")).json == {"image": "x", name: 1492161755}


@pytest.mark.parametrize("flag", ["Web02", "Bare", "Empty"])
async def test_the_body_is_empty_where_nothing_is_defined(api, flag):
    layers = [{"flag": "Bare"}, {"flag": "Empty", "container": []}]
    agent = await api.agent({"configurations": layers})
    answer = await agent.config(flag)
    assert (answer.status, answer.body) == (200, b"")


async def test_updated_grows_with_each_change_and_only_then(api, agent, clock):
    seen = [(await agent.config("Web01")).json["updated"]]
    changes = [{**CONTAINER, "image": "b"}, {**CONTAINER, "image": "b"}, {}, {"image": "b"}]
    for container in changes:
        api.server.update_template(agent.stack.stack_id, template(container))
        if container:
            seen.append((await agent.config("Web01")).json["updated"])
    assert seen == [START, START + 1, START + 1, START + 3]
    clock.now += 100
    api.server.update_template(agent.stack.stack_id, template({"image": "c"}))
    assert (await agent.config("Web01")).json["updated"] == START + 100


async def test_another_layer_s_change_leaves_a_document_as_it_is(api):
    layers = [
        {"flag": "A", "container": {"image": "a"}},
        {"flag": "B", "container": {"image": "b"}},
    ]
    agent = await api.agent({"configurations": layers})
    before = await agent.config("A")
    layers[1] = {"flag": "B", "container": {"image": "c"}}
    api.server.update_template(agent.stack.stack_id, {"configurations": layers})
    assert (await agent.config("A", etag=before.headers["ETag"])).status == 304
    assert (await agent.config("B")).json["image"] == "c"


async def test_a_known_etag_is_answered_304_until_the_document_changes(api, agent):
    first = await agent.config("Web01")
    etag = first.headers["ETag"]
    assert not etag.startswith("W/")
    for sent in (etag, f'"other", {etag}', f"W/{etag}"):
        answer = await agent.config("Web01", etag=sent)
        assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", etag)
    assert (await agent.config("Web01", etag='"other"')).status == 200
    api.server.update_template(agent.stack.stack_id, template({"image": "b"}))
    changed = await agent.config("Web01", etag=etag)
    assert (changed.status, changed.json["image"]) == (200, "b")
    assert changed.headers["ETag"] != etag


@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
async def test_status_calls_are_accepted_and_kept_with_their_time(api, agent, clock, form):
    stack_id = agent.stack.stack_id
    said = {"stack_id": stack_id, "agent_id": "a-1", "status": "error", "message": "Grüße"}
    answer = await agent.status("agent_status", said, form=form)
    assert (answer.status, answer.body) == (202, b"")
    clock.now += 5
    said = {"stack_id": stack_id, "agent_id": "a-1", "status": "running", "instance_id": "i-1"}
    said["container_id"] = "c" * 64
    answer = await agent.status("container_status", said, form=form)
    assert (answer.status, answer.body) == (202, b"")

    first, second = api.server.store.statuses.of(stack_id)
    assert (first.received, first.report.kind, first.report.message) == (START, "agent", "Grüße")
    assert second.received == START + 5
    listed = await api.get(f"/v3/alm/stack/{stack_id}/status")
    assert [one["status"] for one in listed.json] == ["error", "running"]
    assert listed.json[1] == {
        "id": second.id,
        "received": START + 5,
        "kind": "container",
        "message": None,
        **said,
    }
    later = await api.get(f"/v3/alm/stack/{stack_id}/status", after=str(first.id))
    assert later.json == listed.json[1:]


@pytest.mark.parametrize(
    ("path", "missing"),
    [
        ("agent_status", "stack_id"),
        ("agent_status", "agent_id"),
        ("agent_status", "status"),
        ("container_status", "stack_id"),
        ("container_status", "agent_id"),
        ("container_status", "status"),
        ("container_status", "container_id"),
    ],
)
async def test_a_call_without_a_required_field_is_refused_and_not_kept(api, agent, path, missing):
    said = {"agent_id": "a", "status": "s", "container_id": "c", "stack_id": agent.stack.stack_id}
    for bad in ({}, {missing: ""}, {missing: 7}, {missing: None}):
        body = {name: value for name, value in said.items() if name != missing} | bad
        answer = await agent.status(path, body)
        assert answer.status == 400
        assert answer.json["status"] == "error"
        assert missing in answer.json["message"]
    assert api.server.store.statuses.of(agent.stack.stack_id) == []


async def test_concurrent_status_calls_are_all_kept(api, agent):
    stack_id = agent.stack.stack_id
    calls = [
        agent.status(
            "agent_status", {"stack_id": stack_id, "agent_id": f"a{n}", "status": "notice"}
        )
        for n in range(200)
    ]
    answers = await asyncio.gather(*calls)
    assert {answer.status for answer in answers} == {202}
    kept = api.server.store.statuses.of(stack_id)
    assert {one.report.agent_id for one in kept} == {f"a{n}" for n in range(200)}
    assert [one.id for one in kept] == sorted(one.id for one in kept)


async def state(api: Api, agent: AgentApi) -> str:
    described = await api.get(f"/v3/alm/stack/{agent.stack.stack_id}")
    return str(described.json["stack_status"])


async def say(agent: AgentApi, status: str) -> None:
    said = {"stack_id": agent.stack.stack_id, "agent_id": "a", "status": status}
    await agent.status("agent_status", said)


async def test_a_stack_is_complete_when_an_agent_has_its_document_and_is_up_to_date(api, agent):
    await say(agent, "uptodate")
    assert await state(api, agent) == "CREATE_IN_PROGRESS"
    await agent.config("Web01")
    await say(agent, "installing")
    assert await state(api, agent) == "CREATE_IN_PROGRESS"
    await say(agent, "uptodate")
    assert await state(api, agent) == "CREATE_COMPLETE"

    api.server.update_template(agent.stack.stack_id, template({"image": "b"}))
    await say(agent, "uptodate")
    assert await state(api, agent) == "UPDATE_IN_PROGRESS"
    await agent.config("Web01")
    await say(agent, "uptodate")
    assert await state(api, agent) == "UPDATE_COMPLETE"


async def test_an_update_that_changes_no_container_is_complete_at_the_next_poll(api, agent):
    await agent.config("Web01")
    await say(agent, "uptodate")
    api.server.update_template(agent.stack.stack_id, template(provision={"instance_count": 2}))
    assert await state(api, agent) == "UPDATE_IN_PROGRESS"
    await agent.config("Web01")
    assert await state(api, agent) == "UPDATE_COMPLETE"


async def test_a_stack_waits_for_every_layer_that_changed(api):
    layers = [{"flag": flag, "container": {"image": flag}} for flag in ("A", "B")]
    agent = await api.agent({"configurations": layers})
    await agent.config("A")
    await say(agent, "uptodate")
    assert await state(api, agent) == "CREATE_IN_PROGRESS"
    await agent.config("B")
    await say(agent, "uptodate")
    assert await state(api, agent) == "CREATE_COMPLETE"
