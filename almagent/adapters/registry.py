"""The few questions that the Docker engine cannot answer about a registry (OCI distribution spec).

How large an image is, and how long a registry that limits requests wants us to wait. The pull itself is
the engine's; whatever goes wrong here means "unknown".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from almagent.adapters.http_library import aiohttp
from almagent.adapters.registry_auth import Login
from almagent.adapters.trust import Trust, ask
from almagent.core.imageref import DEFAULT_REGISTRY, registry_host

DEADLINE = 10.0  # seconds for one question
MAX_BODY = 4 << 20  # bytes of a manifest or configuration; Docker's own limit for a manifest
CERTIFICATES = Path("/etc/docker/certs.d")  # where Docker looks for a registry's own CA
HUB = "registry-1.docker.io"
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


class RegistryError(Exception):
    """It did not answer, or not as the specification says."""


class Registry:
    """One repository of a registry. Use as an async context manager."""

    def __init__(self, repository: str, login: Login, *, verified: bool) -> None:
        """`verified`: as for the engine, its certificate must be good; else plain HTTP will do, too."""
        host = registry_host(repository)
        path = repository.partition("/")[2] if repository.startswith(f"{host}/") else repository
        if host == DEFAULT_REGISTRY:
            path = path if "/" in path else f"library/{path}"
        self._path = path
        self._login = login
        self._bases = [f"https://{HUB if host == DEFAULT_REGISTRY else host}"]
        self._bases += [] if verified else [f"http://{host}"]
        self._trust = _trust(host) if verified else None
        self._authorization: str | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._trust.context if self._trust else False)
        timeout = aiohttp.ClientTimeout(total=DEADLINE)
        session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        self._session = await self._stack.enter_async_context(session)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def manifest(self, version: str) -> dict[str, Any]:
        """Of a tag or digest. Raises RegistryError."""
        return await self._get(f"manifests/{version}")

    async def blob(self, digest: str) -> dict[str, Any]:
        """A blob that is JSON. Raises RegistryError."""
        return await self._get(f"blobs/{digest}")

    async def retry_after(self, version: str) -> str | None:
        """The header `Retry-After` of a registry that refuses to be asked for a manifest now.

        Asked with HEAD, which registries that ration pulls do not count. Raises RegistryError.
        """
        status, headers, _body = await self._ask("HEAD", f"manifests/{version}")
        return headers.get("Retry-After") if status in {429, 503} else None

    async def _get(self, path: str) -> dict[str, Any]:
        status, _headers, body = await self._ask("GET", path)
        if status != 200 or not isinstance(body, dict):
            raise RegistryError(f"the registry answers {status}")
        return body

    async def _ask(self, method: str, path: str) -> tuple[int, Mapping[str, str], Any]:
        """Log in when told to, once."""
        url = f"{self._bases[0]}/v2/{self._path}/{path}"
        try:
            status, headers, body = await self._send(method, url)
        except aiohttp.ClientConnectorError:
            if len(self._bases) == 1:
                raise RegistryError("the registry cannot be reached") from None
            self._bases.pop(0)
            return await self._ask(method, path)
        if status == 401 and self._authorization is None:
            self._authorization = await self._authorize(headers.get("WWW-Authenticate", ""))
            status, headers, body = await self._send(method, url)
        return status, headers, body

    async def _send(self, method: str, url: str) -> tuple[int, Mapping[str, str], Any]:
        headers = {"Accept": ", ".join(MANIFESTS), "Accept-Encoding": "identity"}
        if self._authorization:
            headers["Authorization"] = self._authorization
        return await self._exchange(method, url, headers, {})

    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], query: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], Any]:
        """Status, headers and the JSON of the body, None without a sound one."""
        try:
            question = partial(self._request, method, url, headers, query)
            return await ask(question, self._trust, aiohttp.ClientConnectorError)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as exc:
            raise RegistryError(f"the registry fails: {type(exc).__name__}") from exc

    async def _request(
        self, method: str, url: str, headers: Mapping[str, str], query: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], Any]:
        async with self._session.request(method, url, headers=headers, params=query) as answer:
            content = await _read(answer)
            return answer.status, answer.headers.copy(), content

    async def _authorize(self, challenge: str) -> str:
        """The `Authorization` that the challenge asks for (RFC 6750 as Docker's token servers do it)."""
        username, password = self._login.get("username"), self._login.get("password", "")
        basic = aiohttp.encode_basic_auth(username, password) if username else None
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and basic:
            return basic
        fields = dict(_PARAMETER.findall(rest))
        realm = fields.pop("realm", "")
        if scheme.lower() != "bearer" or not realm.startswith(("https://", self._bases[0])):
            raise RegistryError("the registry asks for a login that is not known here")
        query = {"service": fields.get("service", ""), "scope": f"repository:{self._path}:pull"}
        headers = {"Authorization": basic} if basic else {}
        _status, _headers, body = await self._exchange("GET", realm, headers, query)
        token = body.get("token") or body.get("access_token") if isinstance(body, dict) else None
        if not token:
            raise RegistryError("the registry gives no token")
        return f"Bearer {token}"


async def _read(answer: aiohttp.ClientResponse) -> Any:
    """The JSON object of a body; None for anything else. Raises ValueError when it is too large."""
    content = bytearray()
    async for chunk in answer.content.iter_any():
        content += chunk
        if len(content) > MAX_BODY:
            raise ValueError("too large")
    return json.loads(content) if content.lstrip().startswith(b"{") else None


def _trust(host: str) -> Trust:
    return Trust(*sorted((CERTIFICATES / host).glob("*.crt")))
