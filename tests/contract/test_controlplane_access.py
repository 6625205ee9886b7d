"""Who may do what: tokens, agents, users, roles."""

from __future__ import annotations

import json
from typing import Any

import pytest

from almagent.controlplane.web.app import ROUTES
from tests.peers.controlplane import Api, assert_is_an_error, running_control_plane

TEMPLATE = {"configurations": [{"flag": "Web01", "container": {"image": "x"}}]}
AGENT_ENDPOINTS = [route for route in ROUTES if "/agent/" in route[1]]
OTHER_ENDPOINTS = [route for route in ROUTES if "/agent/" not in route[1]]
MASTER_ENDPOINTS = [
    (method, path)
    for method, path, _ in ROUTES
    if ("/role" in path or "/v3/user" in path)
    and (method, path) not in {("GET", "/v3/user/role"), ("GET", "/v3/role/templates")}
]


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def api(tmp_path, clock):
    async with running_control_plane(tmp_path, now=clock) as api:
        yield api


def filled(path: str) -> str:
    return path.format(stack_id="mo-x", role_id="morole-x", username="nobody")


@pytest.mark.parametrize(("method", "path", "_endpoint"), ROUTES)
async def test_nothing_is_served_without_a_good_token(api, method, path, _endpoint):
    for token in (None, "", "wrong", "wr\u00f6ng"):
        answer = await api.send(method, filled(path), token=token)
        assert_is_an_error(answer, 401)
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_a_token_ends_with_its_life(api, clock):
    agent = await api.agent(TEMPLATE)
    clock.now += 43199
    assert (await agent.config("Web01")).status == 200
    clock.now += 1
    assert_is_an_error(await agent.config("Web01"), 401)


async def test_tokens_and_secrets_are_not_readable_in_the_state_file(api):
    login = json.loads(api.server.store.login_file.read_text())
    files = list(api.server.store.path.parent.glob(f"{api.server.store.path.name}*"))
    kept = b"".join(one.read_bytes() for one in files if one.suffix != ".json")
    assert len(files) > 1
    for secret in (login["password"], login["client_secret"], api.token):
        assert secret.encode() not in kept
    assert {one.stat().st_mode & 0o777 for one in files} == {0o600}


@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
async def test_wrong_credentials_are_refused(api, form):
    stack = api.server.apply_template(TEMPLATE)
    master = json.loads(api.server.store.login_file.read_text())
    agent = {
        "grant_type": "client_credentials",
        "client_id": stack.stack_id,
        "client_secret": stack.auth_token,
    }
    for right in (agent, master):
        assert (await api.post("/v3/access_token", right, token=None, form=form)).status == 200
        for name in right.keys() - {"grant_type"}:
            wrong = {**right, name: "wrong"}
            answer = await api.post("/v3/access_token", wrong, token=None, form=form)
            assert_is_an_error(answer, 401)
        for name in right:
            less = {other: value for other, value in right.items() if other != name}
            answer = await api.post("/v3/access_token", less, token=None, form=form)
            assert_is_an_error(answer, 400)
    answer = await api.post("/v3/access_token", {**agent, "grant_type": "x"}, token=None)
    assert_is_an_error(answer, 400)


@pytest.mark.parametrize(("method", "path", "_endpoint"), OTHER_ENDPOINTS)
async def test_an_agent_may_use_the_agent_endpoints_only(api, method, path, _endpoint):
    agent = await api.agent(TEMPLATE)
    own = path.format(stack_id=agent.stack.stack_id, role_id="r", username="master")
    query = {"stack_id": agent.stack.stack_id} if path == "/v3/alm/template" else {}
    if path == "/v3/alm/template/compare":
        body: dict[str, Any] = {
            "id": [{agent.stack.stack_id: {"version": "latest"}}],
            "body": [TEMPLATE],
        }
    else:
        body = TEMPLATE
    data = json.dumps(body).encode()
    assert_is_an_error(await api.send(method, own, data, token=agent.token, **query), 403)


async def test_an_agent_may_not_touch_another_stack(api):
    agent = await api.agent(TEMPLATE)
    for other in (api.server.apply_template(TEMPLATE).stack_id, "mo-unknown"):
        said = {"stack_id": other, "agent_id": "a", "status": "s", "container_id": "c"}
        for path in ("agent_status", "container_status"):
            assert_is_an_error(await agent.status(path, said), 403)
        config = await api.get(
            "/v3/alm/agent/config", token=agent.token, stack_id=other, flag="Web01"
        )
        assert_is_an_error(config, 403)


@pytest.mark.parametrize(("method", "path"), MASTER_ENDPOINTS)
async def test_role_administration_is_the_master_account_s(api, method, path):
    token = await api.user("testtest")
    assert_is_an_error(await api.send(method, filled(path), token=token), 403)


async def test_a_user_without_roles_may_work_with_stacks(api):
    token = await api.user("testtest")
    answer = await api.post("/v3/alm/template", TEMPLATE, token=token)
    stack_id = answer.json["stack_id"]
    assert answer.status == 201
    described = await api.get(f"/v3/alm/stack/{stack_id}", token=token)
    assert (described.status, described.json["username"]) == (200, "testtest")
    assert (await api.get("/v3/role/templates", token=token)).status == 200
    assert (await api.get("/v3/user/role", token=token)).json == []


def role(*statements: tuple[str, Any, Any]) -> str:
    named = [
        {"Effect": effect, "Action": action, "Resource": resource}
        for effect, action, resource in statements
    ]
    return json.dumps({"version": "2017-05-05", "Statement": named})


async def attach(api: Api, scope: str) -> None:
    role_id = (await api.post("/v3/role", {"name": "r", "scope": scope})).json["role_id"]
    await api.post("/v3/user/role", {"username": "testtest", "role_id": role_id})


async def test_roles_limit_what_a_user_may_do(api):
    seen, hidden = (api.server.apply_template(TEMPLATE).stack_id for _ in range(2))
    token = await api.user("testtest")
    await attach(
        api,
        role(
            ("Allow", ["stack:*", "template:describe*"], ["*"]),
            ("Deny", "stack:describeStacks", f"mrn:alm:stack:{hidden}"),
        ),
    )
    listed = await api.get("/v3/alm/stack", token=token)
    assert [one["stack_id"] for one in listed.json] == [seen]
    assert_is_an_error(await api.get(f"/v3/alm/stack/{hidden}", token=token), 403)
    assert_is_an_error(await api.get(f"/v3/alm/stack/{hidden}/status", token=token), 403)
    assert (await api.get(f"/v3/alm/template/{seen}", token=token)).status == 200
    assert_is_an_error(await api.put(f"/v3/alm/template/{seen}", TEMPLATE, token=token), 403)
    assert_is_an_error(await api.post("/v3/alm/template", TEMPLATE, token=token), 403)


async def test_a_role_that_only_denies_leaves_the_rest_allowed(api):
    token = await api.user("testtest")
    await attach(api, role(("deny", "template:createAlmTemplate", "*")))
    assert_is_an_error(await api.post("/v3/alm/template", TEMPLATE, token=token), 403)
    assert (await api.get("/v3/alm/stack", token=token)).status == 200


@pytest.mark.parametrize(
    "scope",
    [
        "{ _role scope body_ }",
        "[]",
        "{}",
        '{"Statement": {}}',
        '{"Statement": [1]}',
        role(("Perhaps", "*", "*")),
        role(("Allow", [], "*")),
        role(("Allow", "*", 7)),
    ],
)
async def test_a_scope_that_cannot_be_enforced_is_refused(api, scope):
    assert_is_an_error(await api.post("/v3/role", {"name": "r", "scope": scope}), 400)


async def test_users_are_created_listed_and_deleted_with_their_tokens(api):
    token = await api.user("testtest")
    again = {"username": "testtest", "password": "other"}
    assert_is_an_error(await api.post("/v3/user", again), 409)
    assert_is_an_error(await api.post("/v3/user", {"username": "role", "password": "p"}), 400)
    users = [one["username"] for one in (await api.get("/v3/user")).json]
    assert users == ["master", "testtest"]
    assert (await api.delete("/v3/user/testtest")).status == 200
    assert_is_an_error(await api.get("/v3/alm/stack", token=token), 401)
    assert_is_an_error(await api.delete("/v3/user/testtest"), 404)
    assert_is_an_error(await api.delete("/v3/user/master"), 403)
