"""The routes, and what holds for all of them: tokens, errors, cross-origin calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import structlog
from aiohttp import web

from almagent.controlplane.errors import Problem
from almagent.controlplane.store import Store
from almagent.controlplane.store.tokens import Caller
from almagent.controlplane.web import agents, roles, stacks, templates, tokens, users
from almagent.controlplane.web.access import authenticate
from almagent.controlplane.web.answers import error
from almagent.controlplane.web.bodies import MAX_BODY

log = structlog.get_logger(__name__)

Endpoint = Callable[[web.Request, Store, Caller], Awaitable[web.Response]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ROUTES: tuple[tuple[str, str, Endpoint], ...] = (
    ("POST", "/v3/alm/template", templates.apply),
    ("GET", "/v3/alm/template", templates.versions),
    ("POST", "/v3/alm/template/compare", templates.compare),
    ("PUT", "/v3/alm/template/{stack_id}", templates.update),
    ("GET", "/v3/alm/template/{stack_id}", templates.describe),
    ("GET", "/v3/alm/stack", stacks.list_all),
    ("GET", "/v3/alm/stack/{stack_id}", stacks.describe),
    ("GET", "/v3/alm/stack/{stack_id}/status", stacks.reports),
    ("POST", "/v3/alm/agent/agent_status", agents.agent_status),
    ("POST", "/v3/alm/agent/container_status", agents.container_status),
    ("GET", "/v3/alm/agent/config", agents.config),
    ("POST", "/v3/role", roles.create),
    ("GET", "/v3/role", roles.list_all),
    ("GET", "/v3/role/templates", roles.templates),
    ("PUT", "/v3/role/{role_id}", roles.update),
    ("DELETE", "/v3/role/{role_id}", roles.delete),
    ("POST", "/v3/user/role", roles.attach),
    ("GET", "/v3/user/role", roles.of_caller),
    ("PUT", "/v3/user/role/{role_id}", roles.reattach),
    ("DELETE", "/v3/user/role/{role_id}", roles.detach),
    ("GET", "/v3/user/{username}/role", roles.of_user),
    ("POST", "/v3/user", users.create),
    ("GET", "/v3/user", users.list_all),
    ("DELETE", "/v3/user/{username}", users.delete),
)

# The reference promises cross-origin calls. Tokens travel in a header, never in a cookie, so that
# any page may be let in: it can only use a token that it was given.
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "ETag",
}
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-None-Match",
    "Access-Control-Max-Age": "600",  # seconds
}


def application(store: Store, token_life: int) -> web.Application:
    """`token_life`: seconds that an access token is good for."""
    app = web.Application(client_max_size=MAX_BODY, middlewares=[_guard])
    app.on_response_prepare.append(_let_other_origins_in)
    app.router.add_post("/v3/access_token", partial(_issue_token, store, token_life))
    for method, path, endpoint in ROUTES:
        app.router.add_route(method, path, partial(_serve, store, endpoint))
    return app


async def _issue_token(store: Store, token_life: int, request: web.Request) -> web.Response:
    return await tokens.issue(request, store, token_life)


async def _serve(store: Store, endpoint: Endpoint, request: web.Request) -> web.Response:
    return await endpoint(request, store, authenticate(request, store))


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever goes wrong is answered as one line of JSON."""
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        return web.Response(status=204, headers=_PREFLIGHT)
    try:
        return await handler(request)
    except Problem as problem:
        answer = error(problem.status, str(problem))
        if problem.status == 401:
            answer.headers["WWW-Authenticate"] = "Bearer"
        return answer
    except web.HTTPException as refusal:
        answer = error(refusal.status, f"cannot serve request: {refusal.reason}")
        if "Allow" in refusal.headers:
            answer.headers["Allow"] = refusal.headers["Allow"]
        return answer
    except Exception:
        log.exception("request.failed", method=request.method, path=request.path)
        return error(500, "cannot serve request: internal error")


async def _let_other_origins_in(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_CORS)
