"""The control plane as a context: on a port while it lasts, on its file for ever."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from almagent.controlplane.store import Store
from almagent.controlplane.store.accounts import MASTER
from almagent.controlplane.store.stacks import Stack
from almagent.controlplane.template import checked
from almagent.controlplane.web.app import application

TOKEN_LIFE = 43200  # seconds, as the reference's example says
_STOP_GRACE = 2.0  # seconds for requests that are being served when it stops


class ControlPlaneServer:
    """Serves from `async with` on; `url`, `store` and the two calls below are for its embedder.

    `port` 0 takes a free one. Raises CannotOpen for the state file, OSError for the address.
    """

    url: str
    store: Store

    def __init__(
        self,
        state: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        token_life: int = TOKEN_LIFE,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._state = state
        self._host = host
        self._port = port
        self._token_life = token_life
        self._now = now
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as undo:
            self.store = Store(self._state, self._now)
            undo.callback(self.store.close)
            app = application(self.store, self._token_life)
            runner = web.AppRunner(
                app,
                access_log=None,
                auto_decompress=False,  # nobody compresses these small bodies but for harm
                shutdown_timeout=_STOP_GRACE,
            )
            undo.push_async_callback(runner.cleanup)
            await runner.setup()
            await web.TCPSite(runner, self._host, self._port).start()
            self.url = _url(self._host, runner.addresses[0][1])
            self._exit = undo.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._exit.__aexit__(kind, value, traceback)

    def apply_template(self, template: Mapping[str, Any]) -> Stack:
        """A new stack; its agents log in with its `stack_id` and `auth_token`. Raises Malformed."""
        return self.store.stacks.create(checked(dict(template)), MASTER)

    def update_template(self, stack_id: str, template: Mapping[str, Any]) -> Stack:
        """Raises Malformed, Missing."""
        return self.store.stacks.update(stack_id, checked(dict(template)))


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
