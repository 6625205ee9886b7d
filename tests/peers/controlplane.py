"""The embedded control plane on a free port, and a small HTTP client for it."""

from __future__ import annotations

import copy
import io
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from almagent.controlplane.server import TOKEN_LIFE, ControlPlaneServer
from almagent.controlplane.store.accounts import MASTER
from almagent.controlplane.store.stacks import Stack

_OWN = "own"  # stands for the client's own token


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    content_type: str
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def assert_is_an_error(answer: Answer, status: int) -> None:
    assert answer.status == status
    assert answer.json.keys() == {"status", "message"}
    assert answer.json["status"] == "error"
    assert "\n" not in answer.json["message"]


class Api:
    """Calls as the master account; `token` gives another one, None sends none."""

    def __init__(self, server: ControlPlaneServer, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.token = ""
        self._session = session

    async def send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        token: str | None = _OWN,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        **query: str,
    ) -> Answer:
        sent = {"Content-Type": content_type, **(headers or {})}
        if token is not None:
            sent["Authorization"] = f"Bearer {self.token if token == _OWN else token}"
        url = URL(self.server.url + path, encoded=True).with_query(query)
        data = io.BytesIO(body) if body else None
        async with self._session.request(method, url, data=data, headers=sent) as response:
            return Answer(
                response.status, response.headers, response.content_type, await response.read()
            )

    async def get(self, path: str, *, token: str | None = _OWN, **query: str) -> Answer:
        return await self.send("GET", path, b"", token=token, headers=None, **query)

    async def post(self, path: str, body: Mapping[str, Any], **how: Any) -> Answer:
        return await self._with_body("POST", path, body, **how)

    async def put(self, path: str, body: Mapping[str, Any], **how: Any) -> Answer:
        return await self._with_body("PUT", path, body, **how)

    async def delete(self, path: str, body: Mapping[str, Any] | None = None, **how: Any) -> Answer:
        return await self._with_body("DELETE", path, body or {}, **how)

    async def _with_body(
        self, method: str, path: str, body: Mapping[str, Any], *, form: bool = False, **how: Any
    ) -> Answer:
        if form:
            data = urlencode(body).encode()
            label = "application/x-www-form-urlencoded"
            return await self.send(method, path, data, content_type=label, **how)
        return await self.send(method, path, json.dumps(body).encode(), **how)

    async def log_in(self, login: Mapping[str, str]) -> str:
        answer = await self.post("/v3/access_token", login, token=None)
        assert answer.status == 200, answer.body
        return str(answer.json["access_token"])

    async def user(self, username: str) -> str:
        """The token of a new user."""
        created = await self.post("/v3/user", {"username": username, "password": "pass word"})
        assert created.status == 201, created.body
        login = json.loads(self.server.store.login_file.read_text())
        return await self.log_in({**login, "username": username, "password": "pass word"})

    async def agent(self, template: Mapping[str, Any]) -> AgentApi:
        """An agent of a new stack."""
        stack = self.server.apply_template(template)
        login = {
            "grant_type": "client_credentials",
            "client_id": stack.stack_id,
            "client_secret": stack.auth_token,
        }
        return AgentApi(self, stack, await self.log_in(login))


@dataclass(frozen=True)
class AgentApi:
    api: Api
    stack: Stack
    token: str

    async def config(self, flag: str, etag: str = "") -> Answer:
        return await self.api.send(
            "GET",
            "/v3/alm/agent/config",
            token=self.token,
            headers={"If-None-Match": etag} if etag else {},
            stack_id=self.stack.stack_id,
            flag=flag,
        )

    async def status(self, name: str, said: Mapping[str, Any], *, form: bool = False) -> Answer:
        return await self.api.post(f"/v3/alm/agent/{name}", said, token=self.token, form=form)


@asynccontextmanager
async def running_control_plane(
    directory: Path, now: Callable[[], float] = time.time
) -> AsyncIterator[Api]:
    """On `directory`/state.db; the client has a token of the master account."""
    async with (
        ControlPlaneServer(directory / "state.db", now=now) as server,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
    ):
        api = Api(server, session)
        master = server.store.accounts.find(MASTER)
        api.token = server.store.tokens.issue(master, TOKEN_LIFE)
        yield api


# --- the examples of the API reference -------------------------------------------------------------

_FIRST: dict[str, Any] = {
    "version": "2017-03-03",
    "label": "template version label #1",
    "description": "This template creates a sample stack with EC2 instance on AWS",
    "vendor": {"aws": {"cred": "AKIAJ...DZLA", "region": "ap-northeast-1"}},
    "configurations": [
        {
            "role": "web",
            "flag": "Web01",
            "provision": {
                "image": "${computed}",
                "volume_type": "${computed}",
                "instance_type": "t2.micro",
                "instance_count": 1,
                "keypair": True,
            },
        }
    ],
}

# As it stands there, with the comma after the last entry of `provision`.
_POSTED = (
    '{\n "version": "2017-03-03",\n "label": "template version label #2",\n "description": "This template'
    ' creates a sample stack with EC2 instance on AWS",\n "vendor": {\n "aws": {\n "cred": "AKIAJ...DZLA",\n'
    ' "region": "ap-northeast-1"\n }\n },\n "configurations": [\n {\n "role": "web",\n "flag": "Web01",\n'
    ' "provision": {\n "image": "${computed}", "instance_type": "m3.medium",\n "instance_count": 2,\n'
    ' "keypair": true,\n }\n }\n ]\n }'
)


def example_templates() -> tuple[dict[str, Any], dict[str, Any]]:
    """The one that is applied, and the one it is updated with."""
    second = copy.deepcopy(_FIRST)
    second["label"] = "template version label #2"
    provision = second["configurations"][0]["provision"]
    del provision["volume_type"]
    provision |= {"instance_type": "m3.medium", "instance_count": 2}
    return copy.deepcopy(_FIRST), second


def reference_compare_body(stack_id: str, version_id: str) -> dict[str, Any]:
    return {"id": [{stack_id: {"version": version_id}}], "body": [_POSTED]}
