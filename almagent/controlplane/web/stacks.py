"""Stacks, and what their agents report."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from aiohttp import web

from almagent.controlplane.errors import Forbidden, Malformed
from almagent.controlplane.store import Store
from almagent.controlplane.store.stacks import Stack
from almagent.controlplane.store.tokens import Caller
from almagent.controlplane.web.access import for_user, may_see_stack
from almagent.controlplane.web.answers import time_of_stack


async def list_all(_request: web.Request, store: Store, caller: Caller) -> web.Response:
    """Those that the caller may see."""
    for_user(caller)
    seen = (one for one in store.stacks.all() if may_see_stack(caller, store, one.stack_id))
    return web.json_response([_described(stack, store) for stack in seen])


async def describe(request: web.Request, store: Store, caller: Caller) -> web.Response:
    return web.json_response(_described(_visible(request, store, caller), store))


async def reports(request: web.Request, store: Store, caller: Caller) -> web.Response:
    """Not in the reference: the status calls received, the oldest first, at most 1000 after id `after`."""
    stack = _visible(request, store, caller)
    after = request.query.get("after", "0")
    if not after.isdecimal() or len(after) > 18:
        raise Malformed("cannot list reports: after must be a number")
    answer = [
        {"id": one.id, "received": one.received, **asdict(one.report)}
        for one in store.statuses.of(stack.stack_id, int(after))
    ]
    return web.json_response(answer)


def _visible(request: web.Request, store: Store, caller: Caller) -> Stack:
    stack_id = request.match_info["stack_id"]
    if not may_see_stack(caller, store, stack_id):
        raise Forbidden("cannot serve request: no role permits stack:describeStacks")
    return store.stacks.find(stack_id)


def _described(stack: Stack, store: Store) -> dict[str, Any]:
    return {
        "auth_token": stack.auth_token,
        "user_id": store.accounts.user_id,
        "configuration": stack.latest.template,
        "nickname": stack.nickname,
        "create_time": time_of_stack(stack.create_time),
        "username": stack.username,
        "stack_id": stack.stack_id,
        "stack_status": stack.stack_status,
        "version_id": stack.latest.version_id,
    }
