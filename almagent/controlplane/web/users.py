"""Not in the reference: the users that roles can be attached to. The master account's own endpoints."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from almagent.controlplane.errors import Malformed
from almagent.controlplane.store import Store
from almagent.controlplane.store.accounts import User
from almagent.controlplane.store.tokens import Caller
from almagent.controlplane.web.access import for_master
from almagent.controlplane.web.answers import time_of_stack
from almagent.controlplane.web.bodies import fields, required

_USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_RESERVED = "role"  # /v3/user/role is the reference's


async def create(request: web.Request, store: Store, caller: Caller) -> web.Response:
    for_master(caller)
    username, password = required(await fields(request), "username", "password")
    if not _USERNAME.fullmatch(username) or username == _RESERVED:
        raise Malformed("cannot create user: username must be 1 to 64 letters, digits, ._@-")
    return web.json_response(_described(store.accounts.create(username, password)), status=201)


async def list_all(_request: web.Request, store: Store, caller: Caller) -> web.Response:
    for_master(caller)
    return web.json_response([_described(user) for user in store.accounts.all()])


async def delete(request: web.Request, store: Store, caller: Caller) -> web.Response:
    for_master(caller)
    username = request.match_info["username"]
    store.accounts.delete(username)
    return web.json_response({"status": "success", "username": username})


def _described(user: User) -> dict[str, Any]:
    return {
        "username": user.username,
        "master": user.master,
        "create_time": time_of_stack(user.create_time),
    }
