"""OAuth Authentication: POST /v3/access_token."""

from __future__ import annotations

from aiohttp import web

from almagent.controlplane.errors import Malformed
from almagent.controlplane.store import Store
from almagent.controlplane.store.tokens import Agent, Caller
from almagent.controlplane.web.bodies import Fields, fields, required


async def issue(request: web.Request, store: Store, token_life: int) -> web.Response:
    """`client_credentials` logs an agent in (stack_id and auth_token), `password` a user."""
    caller = _log_in(await fields(request), store)
    answer = {
        "token_type": "Bearer",
        "expires_in": token_life,
        "access_token": store.tokens.issue(caller, token_life),
    }
    return web.json_response(answer, headers={"Cache-Control": "no-store"})


def _log_in(found: Fields, store: Store) -> Caller:
    client_id, client_secret, grant = required(found, "client_id", "client_secret", "grant_type")
    if grant == "client_credentials":
        store.stacks.authenticate(client_id, client_secret)
        return Agent(client_id)
    if grant == "password":
        username, password = required(found, "username", "password")
        return store.accounts.log_in(client_id, client_secret, username, password)
    raise Malformed("cannot log in: grant_type must be client_credentials or password")
