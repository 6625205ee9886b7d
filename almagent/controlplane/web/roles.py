"""RBAC: roles, and attaching them to users."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from almagent.controlplane import scope
from almagent.controlplane.store import Store
from almagent.controlplane.store.roles import Attachment, Role
from almagent.controlplane.store.tokens import Caller
from almagent.controlplane.web.access import for_master, for_user
from almagent.controlplane.web.answers import time_of_stack
from almagent.controlplane.web.bodies import fields, required


async def create(request: web.Request, store: Store, caller: Caller) -> web.Response:
    for_master(caller)
    name, text = await _name_and_scope(request)
    return _done(role_id=store.roles.create(name, text))


async def update(request: web.Request, store: Store, caller: Caller) -> web.Response:
    for_master(caller)
    role_id = request.match_info["role_id"]
    store.roles.update(role_id, *await _name_and_scope(request))
    return _done(role_id=role_id)


async def delete(request: web.Request, store: Store, caller: Caller) -> web.Response:
    for_master(caller)
    role_id = request.match_info["role_id"]
    store.roles.delete(role_id)
    return _done(role_id=role_id)


async def list_all(_request: web.Request, store: Store, caller: Caller) -> web.Response:
    for_master(caller)
    return web.json_response([_described(role, store) for role in store.roles.all()])


async def of_user(request: web.Request, store: Store, caller: Caller) -> web.Response:
    for_master(caller)
    user = store.accounts.find(request.match_info["username"])
    attached = store.roles.attached(user.username)
    return web.json_response([_described(one.role, store) for one in attached])


async def of_caller(_request: web.Request, store: Store, caller: Caller) -> web.Response:
    user = for_user(caller)
    attached = store.roles.attached(user.username)
    return web.json_response([_attachment(one, store) for one in attached])


async def attach(request: web.Request, store: Store, caller: Caller) -> web.Response:
    for_master(caller)
    username, role_id = required(await fields(request), "username", "role_id")
    user = store.accounts.find(username)
    return _done(user_role_id=store.roles.attach(user.username, role_id))


async def reattach(request: web.Request, store: Store, caller: Caller) -> web.Response:
    """The user has this role instead of those it had."""
    for_master(caller)
    (username,) = required(await fields(request), "username")
    role_id = request.match_info["role_id"]
    store.roles.reattach(store.accounts.find(username).username, role_id)
    return _done(role_id=role_id)


async def detach(request: web.Request, store: Store, caller: Caller) -> web.Response:
    for_master(caller)
    (username,) = required(await fields(request), "username")
    role_id = request.match_info["role_id"]
    store.roles.detach(username, role_id)
    return _done(role_id=role_id)


async def templates(_request: web.Request, _store: Store, caller: Caller) -> web.Response:
    for_user(caller)
    return web.json_response(scope.TEMPLATES)


async def _name_and_scope(request: web.Request) -> tuple[str, str]:
    name, text = required(await fields(request), "name", "scope")
    scope.parse(text)
    return name, text


def _done(**what: str) -> web.Response:
    return web.json_response({"status": "success", **what})


def _described(role: Role, store: Store) -> dict[str, Any]:
    return {
        "role_id": role.role_id,
        "user_id": store.accounts.user_id,
        "name": role.name,
        "scope": role.scope,
        "create_time": time_of_stack(role.create_time),
        "update_time": time_of_stack(role.update_time),
    }


def _attachment(one: Attachment, store: Store) -> dict[str, Any]:
    user = {"user_id": store.accounts.user_id, "username": one.username}
    return {
        "user_role_id": one.user_role_id,
        "role_id": one.role.role_id,
        "user": json.dumps(user),
        "scope": one.role.scope,
        "create_time": time_of_stack(one.create_time),
        "update_time": time_of_stack(one.update_time),
    }
