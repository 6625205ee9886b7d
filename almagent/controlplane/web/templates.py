"""ALM Templates."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from almagent.controlplane import jsontext
from almagent.controlplane.diff import difference
from almagent.controlplane.errors import Malformed
from almagent.controlplane.store import Store
from almagent.controlplane.store.stacks import Stack
from almagent.controlplane.store.tokens import Caller
from almagent.controlplane.template import Template, checked
from almagent.controlplane.web.access import for_template
from almagent.controlplane.web.answers import time_of_version
from almagent.controlplane.web.bodies import json_object, required


async def apply(request: web.Request, store: Store, caller: Caller) -> web.Response:
    user = for_template(caller, store, "createAlmTemplate")
    stack = store.stacks.create(checked(await json_object(request)), user.username)
    return _accepted(stack, "CREATE_IN_PROGRESS", 201)


async def update(request: web.Request, store: Store, caller: Caller) -> web.Response:
    stack_id = request.match_info["stack_id"]
    for_template(caller, store, "updateAlmTemplate", stack_id)
    stack = store.stacks.update(stack_id, checked(await json_object(request)))
    return _accepted(stack, "UPDATE_IN_PROGRESS", 202)


def _accepted(stack: Stack, stack_status: str, status: int) -> web.Response:
    answer = {
        "status": "success",
        "stack_status": stack_status,
        "stack_id": stack.stack_id,
        "version_id": stack.latest.version_id,
    }
    return web.json_response(answer, status=status)


async def versions(request: web.Request, store: Store, caller: Caller) -> web.Response:
    (stack_id,) = required(request.query, "stack_id")
    for_template(caller, store, "describeAlmTemplate", stack_id)
    answer = [
        {
            "version_id": version.version_id,
            "latest": number == 0,
            "last_modified": time_of_version(version.last_modified),
            "size": str(version.size),
        }
        for number, version in enumerate(store.stacks.versions(stack_id))
    ]
    return web.json_response(answer)


async def describe(request: web.Request, store: Store, caller: Caller) -> web.Response:
    stack_id = request.match_info["stack_id"]
    for_template(caller, store, "describeAlmTemplate", stack_id)
    version = store.stacks.version(stack_id, request.query.get("version_id", ""))
    return web.json_response(version.template)


async def compare(request: web.Request, store: Store, caller: Caller) -> web.Response:
    """Two kept templates, or a kept one and one in the body: the source is always a kept one."""
    found = await json_object(request)
    if not isinstance(found, dict):
        raise Malformed("cannot compare templates: the body must be a JSON object")
    ids, bodies = _listed(found, "id"), _listed(found, "body")
    if not ids or len(ids) + len(bodies) != 2:
        raise Malformed("cannot compare templates: two are needed, the first of them by id")
    kept = [_kept(one, store, caller) for one in ids]
    source, target = kept + [_posted(one) for one in bodies]
    answer = {
        "status": "success",
        "source": source,
        "target": target,
        "diff": difference(source, target),
    }
    return web.json_response(answer, status=202)


def _listed(found: dict[str, Any], name: str) -> list[Any]:
    value = found.get(name, [])
    if not isinstance(value, list):
        raise Malformed(f"cannot compare templates: {name} must be a list")
    return value


def _kept(one: Any, store: Store, caller: Caller) -> Template:
    """{stack_id: {"version": version_id}}"""
    if not isinstance(one, dict) or len(one) != 1:
        raise Malformed("cannot compare templates: an id must be an object with one stack_id")
    ((stack_id, which),) = one.items()
    if not isinstance(which, dict):
        raise Malformed("cannot compare templates: a stack_id must hold a version")
    (version_id,) = required(which, "version")
    for_template(caller, store, "describeAlmTemplate", stack_id)
    return store.stacks.version(stack_id, version_id).template


def _posted(one: Any) -> Template:
    """A template as JSON text, as the reference has it, or as the object itself."""
    if isinstance(one, str):
        return checked(jsontext.parse(jsontext.without_trailing_commas(one), "template body"))
    return checked(one)
