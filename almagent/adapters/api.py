"""The ControlPlane port over the ALM API v3."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Protocol

from almagent.adapters.alm.peer import Peer, peer
from almagent.adapters.alm.token import TokenKeeper
from almagent.adapters.calls import OnCall, uncounted
from almagent.core import wire
from almagent.core.model import Secret, Status
from almagent.ports import Refused, Unavailable


class Transport(Protocol):
    """HTTP to the API. Deadlines are the caller's."""

    async def send(self, request: wire.Request, token: str = "") -> wire.Answer:
        """Raises Unavailable when no answer comes or it is too large."""

    async def close(self) -> None: ...


def transport(where: Peer, *, timeout: float, on_call: OnCall, brief: bool) -> Transport:
    """`brief`: for a command that asks once or twice and ends."""
    if brief and where.proxy is None:
        from almagent.adapters.alm.brief import BriefTransport  # noqa: PLC0415  one of the two is loaded

        return BriefTransport(where, timeout=timeout, on_call=on_call)
    from almagent.adapters.alm.transport import AiohttpTransport  # noqa: PLC0415  likewise

    return AiohttpTransport(where, timeout=timeout, on_call=on_call)


class LoginRefused(Unavailable):
    """The API does not take our credentials. What was to be said may still be said with others."""


class AlmApi:
    """`timeout`: seconds for one whole call, a login and a second try after a 401 included.

    `instance_id` may be set later, when the cloud has told it. Raises Refused when `ca_file` or the proxy
    of the environment cannot be used. Nothing is tried again here but a call that got a 401: once.
    """

    def __init__(
        self,
        *,
        url: str,
        client_id: str,
        client_secret: Secret,
        stack_id: str,
        flag: str,
        agent_id: str,
        instance_id: str = "",
        timeout: float = 10.0,
        ca_file: str = "",
        user_agent: str = "almagent",
        on_call: OnCall = uncounted,
        brief: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.agent_id = agent_id
        self.instance_id = instance_id
        self._client_id = client_id
        self._client_secret = client_secret
        self._stack_id = stack_id
        self._flag = flag
        self._timeout = timeout
        self._etag = ""
        self._transport = transport(
            peer(url, ca_file, user_agent), timeout=timeout, on_call=on_call, brief=brief
        )
        self._tokens = TokenKeeper(self._log_in, clock)

    async def fetch_document(self) -> bytes | None:
        """As the port says. After `forget_document` it is fetched whole, changed or not."""
        etag = self._etag
        answer = await self._call(wire.ask_document(self._stack_id, self._flag, etag))
        with _translated():
            document = wire.read_document(answer, conditional=bool(etag))
        if document is None:
            return None
        self._etag = document.etag
        return document.body

    def forget_document(self) -> None:
        self._etag = ""

    async def post(self, status: Status) -> None:
        who = wire.Identity(self._stack_id, self.agent_id, self.instance_id)
        request = wire.say(status, who)
        answer = await self._call(request)
        with _translated():
            wire.read_acknowledgement(answer, request.purpose)

    async def close(self) -> None:
        await self._tokens.close()
        await self._transport.close()

    async def _call(self, request: wire.Request) -> wire.Answer:
        return await self._in_time(request, self._authorized(request))

    async def _authorized(self, request: wire.Request) -> wire.Answer:
        token = await self._tokens.token()
        answer = await self._transport.send(request, token)
        if answer.status != 401:
            return answer
        self._tokens.reject(token)
        return await self._transport.send(request, await self._tokens.token())

    async def _log_in(self) -> wire.Token:
        request = wire.login(self._client_id, self._client_secret)
        answer = await self._in_time(request, self._transport.send(request))
        try:
            return wire.read_token(answer)
        except wire.LoginRejected as error:
            raise LoginRefused(str(error)) from error
        except wire.WireError as error:
            raise Unavailable(str(error), retry_after=error.retry_after) from error

    async def _in_time(
        self, request: wire.Request, answer: Coroutine[None, None, wire.Answer]
    ) -> wire.Answer:
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        except TimeoutError as error:
            raise Unavailable(
                f"cannot {request.purpose}: no answer within {self._timeout:g} s"
            ) from error


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except wire.WireError as error:
        kind = Refused if error.final else Unavailable
        raise kind(str(error), retry_after=error.retry_after) from error
