"""Alm-Agent: what agents say, and the document they ask for."""

from __future__ import annotations

import hashlib

from aiohttp import web

from almagent.controlplane.store import Store
from almagent.controlplane.store.statuses import Report
from almagent.controlplane.store.tokens import Caller
from almagent.controlplane.web.access import for_agent_of
from almagent.controlplane.web.bodies import fields, optional, required


async def agent_status(request: web.Request, store: Store, caller: Caller) -> web.Response:
    found = await fields(request)
    stack_id, agent_id, status = required(found, "stack_id", "agent_id", "status")
    report = Report(
        kind="agent",
        stack_id=stack_id,
        agent_id=agent_id,
        status=status,
        instance_id=optional(found, "instance_id"),
        message=optional(found, "message"),
    )
    return _accept(report, store, caller)


async def container_status(request: web.Request, store: Store, caller: Caller) -> web.Response:
    found = await fields(request)
    names = ("stack_id", "agent_id", "container_id", "status")
    stack_id, agent_id, container_id, status = required(found, *names)
    report = Report(
        kind="container",
        stack_id=stack_id,
        agent_id=agent_id,
        status=status,
        container_id=container_id,
        instance_id=optional(found, "instance_id"),
    )
    return _accept(report, store, caller)


def _accept(report: Report, store: Store, caller: Caller) -> web.Response:
    for_agent_of(report.stack_id, caller)
    store.stacks.find(report.stack_id)
    store.statuses.add(report)
    if (report.kind, report.status) == ("agent", "uptodate"):
        store.stacks.settle(report.stack_id)
    return web.Response(status=202)


async def config(request: web.Request, store: Store, caller: Caller) -> web.Response:
    """An empty body: no such flag, or no container section in its layer."""
    stack_id, flag = required(request.query, "stack_id", "flag")
    for_agent_of(stack_id, caller)
    body = store.stacks.hand_out(stack_id, flag).encode()
    etag = hashlib.sha256(body).hexdigest()
    known = {one.value for one in request.if_none_match or ()}
    if etag in known:
        answer = web.Response(status=304)
    else:
        answer = web.Response(body=body, content_type="application/json")
    answer.etag = etag
    answer.headers["Cache-Control"] = "private, no-cache"
    return answer
