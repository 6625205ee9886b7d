"""What everybody is told when a request cannot be served, and that pages of other origins may ask."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from almagent.controlplane.scope import Scope
from tests.peers.controlplane import assert_is_an_error, running_control_plane

TEMPLATE = {"configurations": [{"flag": "Web01", "container": {"image": "x"}}]}
SCOPE = '{"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'


@pytest.fixture
async def api(tmp_path):
    async with running_control_plane(tmp_path) as api:
        yield api


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[",
        b"[]",
        b'"text"',
        b"{}",
        b'{"configurations": []}',
        b'{"configurations": [1]}',
        b'{"configurations": [{"role": "web"}]}',
        b'{"configurations": [{"flag": "a"}, {"flag": "a"}]}',
        b'{"configurations": [{"flag": "a", "container": "image"}]}',
        b'{"configurations": [{"flag": "a", "x": NaN}]}',
        b'{"configurations": [{"flag": "a", "x": "\\ud800"}]}',
        b'{"configurations": [{"flag": "a", "x": 1e999}]}',
        b'{"configurations": [{"flag": "a", "x": ' + b"[" * 100 + b"]" * 100 + b"}]}",
        b"\xff\xfe",
        b"[" * 500_000,
    ],
    ids=range(16),
)
async def test_a_malformed_template_is_refused(api, body):
    stack_id = api.server.apply_template(TEMPLATE).stack_id
    assert_is_an_error(await api.send("POST", "/v3/alm/template", body), 400)
    assert_is_an_error(await api.send("PUT", f"/v3/alm/template/{stack_id}", body), 400)
    assert len(api.server.store.stacks.versions(stack_id)) == 1


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ([], "it must be an object"),
        ({}, "configurations is required"),
        ({"configurations": {}}, "configurations must be a list"),
        ({"configurations": []}, "configurations must not be empty"),
        ({"configurations": [{"flag": "a"}, 3]}, "configurations/2 must be an object"),
        ({"configurations": [{"flag": "a"}, {}]}, "configurations/2/flag is required"),
        ({"configurations": [{"flag": ""}]}, "configurations/1/flag must not be empty"),
        ({"configurations": [{"flag": 7}]}, "configurations/1/flag must be a text"),
        (
            {"configurations": [{"flag": "canary"}] * 2},
            "configurations must not have a flag twice, as layer 2 has",
        ),
        (
            {"configurations": [{"flag": "a", "container": "canary"}]},
            "configurations/1/container must be an object",
        ),
    ],
)
async def test_what_is_wrong_with_a_template_is_told_by_place(api, template, message):
    answer = await api.post("/v3/alm/template", template)
    assert_is_an_error(answer, 400)
    assert f"cannot apply template: {message}'" in str(answer.json)
    assert "canary" not in str(answer.json)


def test_one_wrong_entry_of_a_list_is_enough() -> None:
    """A body has room for 500,000, which took 2 s and 700 MB to be told of."""
    with pytest.raises(ValidationError) as caught:
        Scope.model_validate({"Statement": [7] * 1000})
    assert caught.value.error_count() == 1


@pytest.mark.parametrize(
    ("scope", "message"),
    [
        ([], "it must be an object"),
        ({"Statement": [{"Effect": "canary"}]}, "statement/1/effect must be 'allow' or 'deny'"),
        (
            {"Statement": [{"Effect": "Deny", "Action": ["x", 1], "Resource": "*"}]},
            "statement/1/action/2 must be a text",
        ),
        (
            {"Statement": [{"Effect": "Deny", "Action": "x", "Resource": []}]},
            "statement/1/resource must not be empty",
        ),
    ],
)
async def test_what_is_wrong_with_a_scope_is_told_by_place(api, scope, message):
    answer = await api.post("/v3/role", {"name": "r", "scope": json.dumps(scope)})
    assert_is_an_error(answer, 400)
    assert message in answer.json["message"]
    assert "canary" not in str(answer.json)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"id": []},
        {"id": "x"},
        {"id": ["x"], "body": ["{}"]},
        {"id": [{"STACK": {}}], "body": ["{}"]},
        {"id": [{"STACK": "latest"}], "body": ["{}"]},
        {"id": [{"STACK": {"version": "latest"}}]},
        {"body": ["{}", "{}"]},
        {"id": [{"STACK": {"version": "latest"}}], "body": ["{"]},
        {"id": [{"STACK": {"version": "latest"}}] * 3},
    ],
    ids=str,
)
async def test_a_malformed_comparison_is_refused(api, body):
    stack_id = api.server.apply_template(TEMPLATE).stack_id
    text = json.dumps(body).replace("STACK", stack_id)
    answer = await api.send("POST", "/v3/alm/template/compare", text.encode())
    assert_is_an_error(answer, 400)


async def test_what_is_not_there_is_not_found(api):
    stack_id = api.server.apply_template(TEMPLATE).stack_id
    user = {"username": "nobody", "role_id": "morole-x"}
    calls = [
        api.get("/nowhere"),
        api.get("/v3/alm/stack/mo-x"),
        api.get("/v3/alm/stack/%FF%00"),
        api.get("/v3/alm/stack/mo-x/status"),
        api.get("/v3/alm/template/mo-x"),
        api.get(f"/v3/alm/template/{stack_id}", version_id="x"),
        api.get("/v3/alm/template", stack_id="mo-x"),
        api.put("/v3/alm/template/mo-x", TEMPLATE),
        api.put("/v3/role/morole-x", {"name": "n", "scope": SCOPE}),
        api.delete("/v3/role/morole-x"),
        api.get("/v3/user/nobody/role"),
        api.post("/v3/user/role", user),
        api.post("/v3/user/role", {**user, "username": "master"}),
        api.put("/v3/user/role/morole-x", {"username": "master"}),
        api.delete("/v3/user/role/morole-x", {"username": "master"}),
    ]
    for call in calls:
        assert_is_an_error(await call, 404)


async def test_missing_parameters_are_malformed(api):
    agent = await api.agent(TEMPLATE)
    path = "/v3/alm/agent/config"
    for query in ({}, {"flag": "Web01"}, {"stack_id": agent.stack.stack_id}):
        assert_is_an_error(await api.get(path, token=agent.token, **query), 400)
    assert_is_an_error(await api.get("/v3/alm/template"), 400)
    answer = await api.get(f"/v3/alm/stack/{agent.stack.stack_id}/status", after="x")
    assert_is_an_error(answer, 400)


async def test_a_wrong_method_is_told_the_right_ones(api):
    answer = await api.send("PATCH", "/v3/role")
    assert_is_an_error(answer, 405)
    assert answer.headers["Allow"] == "GET,POST"


async def test_a_body_may_have_one_mebibyte_and_not_more(api):
    for path in ("/v3/access_token", "/v3/alm/agent/agent_status", "/v3/alm/template"):
        limit = b"{" + b" " * (1024 * 1024 - 2) + b"}"
        assert_is_an_error(await api.send("POST", path, limit), 400)
        assert_is_an_error(await api.send("POST", path, limit + b" "), 413)


async def test_pages_of_other_origins_may_call(api):
    asks = {"Origin": "https://ui.example", "Access-Control-Request-Method": "PUT"}
    answer = await api.send("OPTIONS", "/v3/alm/template/mo-x", token=None, headers=asks)
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "PUT" in answer.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert (await api.get("/v3/role")).headers["Access-Control-Allow-Origin"] == "*"
