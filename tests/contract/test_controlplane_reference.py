"""Every endpoint of the API reference, with the reference's own example bodies."""

from __future__ import annotations

import json
import re

import pytest

from tests.peers.controlplane import (
    Api,
    example_templates,
    reference_compare_body,
    running_control_plane,
)

FIRST, SECOND = example_templates()
ROLE_SCOPE = '{"version": "2017-05-05", "Statement": [{"Effect": "Allow", "Action": ["*"], "Resource": ["*"]}]}'


@pytest.fixture
async def api(tmp_path):
    async with running_control_plane(tmp_path) as api:
        yield api


async def created(api: Api) -> tuple[str, str]:
    answer = await api.post("/v3/alm/template", FIRST)
    return answer.json["stack_id"], answer.json["version_id"]


async def test_an_agent_gets_a_token_for_its_stack(api):
    stack = api.server.apply_template(FIRST)
    login = {
        "grant_type": "client_credentials",
        "client_id": stack.stack_id,
        "client_secret": stack.auth_token,
    }
    answer = await api.post("/v3/access_token", login, token=None)
    assert answer.status == 200
    assert answer.json.keys() == {"token_type", "expires_in", "access_token"}
    assert (answer.json["token_type"], answer.json["expires_in"]) == ("Bearer", 43200)
    assert answer.headers["Cache-Control"] == "no-store"


async def test_applying_a_template_creates_a_stack(api):
    answer = await api.post("/v3/alm/template", FIRST)
    assert answer.status == 201
    assert answer.json["status"] == "success"
    assert answer.json["stack_status"] == "CREATE_IN_PROGRESS"
    assert re.fullmatch(r"mo-[0-9a-f]{13}-\w{9}-tk", answer.json["stack_id"])
    assert len(answer.json["version_id"]) == 32


async def test_updating_a_template_makes_a_version_and_ignores_the_vendor(api):
    stack_id, first = await created(api)
    other_vendor = {**SECOND, "vendor": {"gcp": {}}}
    answer = await api.put(f"/v3/alm/template/{stack_id}", other_vendor)
    assert answer.status == 202
    assert answer.json == {
        "status": "success",
        "stack_status": "UPDATE_IN_PROGRESS",
        "stack_id": stack_id,
        "version_id": answer.json["version_id"],
    }
    assert answer.json["version_id"] != first
    assert (await api.get(f"/v3/alm/template/{stack_id}")).json == SECOND


async def test_a_template_comes_back_in_the_order_it_was_written(api):
    stack_id, _ = await created(api)
    await api.put(f"/v3/alm/template/{stack_id}", SECOND)
    assert list((await api.get(f"/v3/alm/template/{stack_id}")).json) == list(SECOND)


@pytest.mark.parametrize(
    "form", [{"template": json.dumps(FIRST)}, {json.dumps(FIRST): ""}], ids=["value", "name"]
)
async def test_a_template_may_come_as_a_form(api, form):
    answer = await api.post("/v3/alm/template", form, form=True)
    assert answer.status == 201
    assert (await api.get(f"/v3/alm/template/{answer.json['stack_id']}")).json == FIRST
    assert (
        await api.put(f"/v3/alm/template/{answer.json['stack_id']}", form, form=True)
    ).status == 202


async def test_versions_are_listed_newest_first(api):
    stack_id, first = await created(api)
    second = (await api.put(f"/v3/alm/template/{stack_id}", SECOND)).json["version_id"]
    answer = await api.get("/v3/alm/template", stack_id=stack_id)
    assert answer.status == 200
    assert [(one["version_id"], one["latest"]) for one in answer.json] == [
        (second, True),
        (first, False),
    ]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z", answer.json[0]["last_modified"])
    assert all(one["size"].isdecimal() for one in answer.json)


async def test_a_template_is_described_by_version_or_as_the_latest(api):
    stack_id, first = await created(api)
    await api.put(f"/v3/alm/template/{stack_id}", SECOND)
    path = f"/v3/alm/template/{stack_id}"
    assert (await api.get(path, version_id=first)).json == FIRST
    for latest in ({}, {"version_id": ""}, {"version_id": "latest"}):
        answer = await api.get(path, **latest)
        assert (answer.status, answer.json) == (200, SECOND)


async def test_comparing_two_versions_answers_as_the_reference_does(api):
    stack_id, first = await created(api)
    second = (await api.put(f"/v3/alm/template/{stack_id}", SECOND)).json["version_id"]
    ids = [{stack_id: {"version": first}}, {stack_id: {"version": second}}]
    answer = await api.post("/v3/alm/template/compare", {"id": ids})
    assert answer.status == 202
    assert answer.json == {
        "status": "success",
        "source": FIRST,
        "target": SECOND,
        "diff": {
            "new": [],
            "removed": {"configurations/1/provision/volume_type": "${computed}"},
            "edited": {
                "label": {
                    "oldvalue": "template version label #1",
                    "newvalue": "template version label #2",
                },
                "configurations/provision/instance_type": {
                    "oldvalue": "t2.micro",
                    "newvalue": "m3.medium",
                },
                "configurations/provision/instance_count": {"oldvalue": 1, "newvalue": 2},
            },
        },
    }


async def test_comparing_with_a_posted_body_takes_the_reference_s_own_text(api):
    """That text has a comma before a closing brace."""
    stack_id, first = await created(api)
    answer = await api.post("/v3/alm/template/compare", reference_compare_body(stack_id, first))
    assert answer.status == 202
    assert answer.json["target"] == SECOND
    assert answer.json["diff"]["edited"].keys() == {
        "label",
        "configurations/provision/instance_type",
        "configurations/provision/instance_count",
    }


async def test_stacks_are_listed_and_described(api):
    stack_id, version_id = await created(api)
    described = await api.get(f"/v3/alm/stack/{stack_id}")
    assert described.status == 200
    assert (await api.get("/v3/alm/stack")).json == [described.json]
    stack = described.json
    assert stack.keys() == {
        "auth_token",
        "user_id",
        "configuration",
        "nickname",
        "create_time",
        "username",
        "stack_id",
        "stack_status",
        "version_id",
    }
    assert stack["configuration"] == FIRST
    assert stack["version_id"] == version_id
    assert stack["username"] == "master"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", stack["create_time"])


@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
async def test_roles_live_from_creation_to_deletion(api, form):
    role = {"name": "sample name", "scope": ROLE_SCOPE}
    answer = await api.post("/v3/role", role, form=form)
    role_id = answer.json["role_id"]
    assert (answer.status, answer.json) == (200, {"status": "success", "role_id": role_id})
    assert role_id.startswith("morole-")

    renamed = {"name": "other", "scope": ROLE_SCOPE}
    answer = await api.put(f"/v3/role/{role_id}", renamed, form=form)
    assert (answer.status, answer.json) == (200, {"status": "success", "role_id": role_id})

    (listed,) = (await api.get("/v3/role")).json
    assert listed.keys() == {
        "role_id",
        "user_id",
        "name",
        "scope",
        "create_time",
        "update_time",
    }
    assert (listed["name"], listed["scope"]) == ("other", ROLE_SCOPE)

    answer = await api.delete(f"/v3/role/{role_id}")
    assert (answer.status, answer.json) == (200, {"status": "success", "role_id": role_id})
    assert (await api.get("/v3/role")).json == []


@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
async def test_roles_are_attached_reattached_and_detached(api, form):
    user = await api.user("testtest")
    first = (await api.post("/v3/role", {"name": "1", "scope": ROLE_SCOPE})).json["role_id"]
    second = (await api.post("/v3/role", {"name": "2", "scope": ROLE_SCOPE})).json["role_id"]

    attachment = {"username": "testtest", "role_id": first}
    answer = await api.post("/v3/user/role", attachment, form=form)
    assert answer.status == 200
    assert answer.json["user_role_id"].startswith("mour-")
    assert (await api.post("/v3/user/role", attachment, form=form)).json == answer.json

    (own,) = (await api.get("/v3/user/role", token=user)).json
    assert own.keys() == {
        "user_role_id",
        "role_id",
        "user",
        "scope",
        "create_time",
        "update_time",
    }
    assert (own["role_id"], own["user_role_id"]) == (first, answer.json["user_role_id"])

    target = {"username": "testtest"}
    answer = await api.put(f"/v3/user/role/{second}", target, form=form)
    assert (answer.status, answer.json) == (200, {"status": "success", "role_id": second})
    (role,) = (await api.get("/v3/user/testtest/role")).json
    assert (role["role_id"], role["name"]) == (second, "2")

    answer = await api.delete(f"/v3/user/role/{second}", target, form=form)
    assert (answer.status, answer.json) == (200, {"status": "success", "role_id": second})
    assert (await api.get("/v3/user/testtest/role")).json == []
    assert (await api.delete(f"/v3/user/role/{second}", target, form=form)).status == 404


async def test_deleting_a_role_detaches_it(api):
    await api.user("testtest")
    role_id = (await api.post("/v3/role", {"name": "1", "scope": ROLE_SCOPE})).json["role_id"]
    await api.post("/v3/user/role", {"username": "testtest", "role_id": role_id})
    await api.delete(f"/v3/role/{role_id}")
    assert (await api.get("/v3/user/testtest/role")).json == []


async def test_role_templates_hold_the_admin_role_of_the_reference(api):
    answer = await api.get("/v3/role/templates")
    assert answer.status == 200
    assert answer.json[0] == {
        "id": "admin",
        "name": "Management Role",
        "scope": {
            "version": "2017-05-05",
            "Statement": [{"Effect": "Allow", "Action": ["*"], "Resource": ["*"]}],
        },
    }


async def test_an_ill_labelled_json_body_is_read_as_json(api):
    """The reference shows JSON bodies under the label of a form."""
    body = b'{"name": "sample name", "scope": "{\\"Statement\\": [{\\"Effect\\": \\"Deny\\", \\"Action\\": \\"*\\", \\"Resource\\": \\"*\\"}]}"}'
    label = "application/x-www-form-urlencoded"
    assert (await api.send("POST", "/v3/role", body, content_type=label)).status == 200
