"""Who may call what.

An agent may use the Alm-Agent endpoints, for its own stack. The master account may use all of them.
Another user may use what its roles permit, of the endpoints that are not the master account's own.
"""

from __future__ import annotations

from aiohttp import web

from almagent.controlplane.errors import Forbidden, Unauthorized
from almagent.controlplane.scope import permits
from almagent.controlplane.store import Store
from almagent.controlplane.store.accounts import User
from almagent.controlplane.store.tokens import Agent, Caller


def authenticate(request: web.Request, store: Store) -> Caller:
    """Raises Unauthorized."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("cannot serve request: no bearer token in the Authorization header")
    return store.tokens.caller(token.strip())


def for_agent_of(stack_id: str, caller: Caller) -> None:
    """Raises Forbidden unless `caller` is an agent of that stack, or the master account."""
    allowed = caller.stack_id == stack_id if isinstance(caller, Agent) else caller.master
    if not allowed:
        raise Forbidden("cannot serve request: it is not the caller's stack")


def for_user(caller: Caller) -> User:
    """Raises Forbidden for an agent."""
    if isinstance(caller, Agent):
        raise Forbidden("cannot serve request: agents may use the Alm-Agent endpoints only")
    return caller


def for_master(caller: Caller) -> User:
    """Raises Forbidden."""
    user = for_user(caller)
    if not user.master:
        raise Forbidden("cannot serve request: only the master account may")
    return user


def may(caller: Caller, store: Store, action: str, resource: str) -> bool:
    """Whether the user's roles permit it. Raises Forbidden for an agent."""
    user = for_user(caller)
    scopes = (one.role.scope for one in store.roles.attached(user.username))
    return user.master or permits(scopes, action, resource)


def for_template(caller: Caller, store: Store, action: str, stack_id: str = "*") -> User:
    """Raises Forbidden."""
    if not may(caller, store, f"template:{action}", f"mrn:alm:template:{stack_id}"):
        raise Forbidden(f"cannot serve request: no role permits template:{action}")
    return for_user(caller)


def may_see_stack(caller: Caller, store: Store, stack_id: str) -> bool:
    """Raises Forbidden for an agent."""
    return may(caller, store, "stack:describeStacks", f"mrn:alm:stack:{stack_id}")
