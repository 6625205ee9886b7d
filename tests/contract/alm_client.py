"""The ALM API adapter as the contract tests use it: fast deadlines, and a secret to look for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from almagent.adapters.api import AlmApi
from almagent.core.model import Secret
from tests.peers.api import ScriptedApi

SECRET = "s3cret-Canary"
BRIEF = ContextVar("BRIEF", default=False)  # whether it is the one for commands that end at once
AGENT_ID = "3f0d6f5e-0000-4000-8000-000000000001"


@asynccontextmanager
async def client(api: ScriptedApi, **changes: object) -> AsyncIterator[AlmApi]:
    options: dict[str, object] = {
        "url": api.url,
        "client_id": "mo-1",
        "client_secret": Secret(SECRET),
        "stack_id": "mo-1",
        "flag": "Web 01+&",
        "agent_id": AGENT_ID,
        "timeout": 2.0,
        "user_agent": "almagent/test",
        "brief": BRIEF.get(),
    }
    alm = AlmApi(**{**options, **changes})  # type: ignore[arg-type]
    try:
        yield alm
    finally:
        await alm.close()
