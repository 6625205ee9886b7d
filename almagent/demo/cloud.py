"""What an EC2 instance asks about itself, as far as the agent asks: the version 2 metadata service."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime, timedelta

from aiohttp import web

INSTANCE_ID = "i-0123456789abcdef0"
TOKEN_HEADER = "X-aws-ec2-metadata-token"  # noqa: S105  the name of a header


class Cloud:
    """An instance that goes on for ever, until `give_notice`."""

    def __init__(self) -> None:
        self._token = secrets.token_urlsafe()
        self._values = {"instance-id": INSTANCE_ID}

    def give_notice(self, warning: timedelta = timedelta(minutes=2)) -> None:
        """The instance will be terminated `warning` from now; two minutes are what AWS gives."""
        end = (datetime.now(UTC) + warning).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._values["spot/instance-action"] = json.dumps({"action": "terminate", "time": end})

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_put("/latest/api/token", self._give_token)
        app.router.add_get("/latest/meta-data/{path:.+}", self._tell)
        return app

    async def _give_token(self, request: web.Request) -> web.Response:
        life = request.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if not life.isdecimal():
            raise web.HTTPBadRequest
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": life}
        return web.Response(text=self._token, headers=headers)

    async def _tell(self, request: web.Request) -> web.Response:
        if request.headers.get(TOKEN_HEADER) != self._token:
            raise web.HTTPUnauthorized
        text = self._values.get(request.match_info["path"])
        if text is None:
            raise web.HTTPNotFound
        return web.Response(text=text)
