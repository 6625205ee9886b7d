"""Images: pulled as asked or not at all, and collected when nothing needs them any more."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

from almagent.adapters import registry_auth
from almagent.adapters.docker_engine import manifest, space
from almagent.adapters.docker_engine.album import Album
from almagent.adapters.docker_engine.door import LONG, EngineDoor
from almagent.adapters.docker_engine.manifest import EngineFacts
from almagent.adapters.docker_engine.pull import RateLimited, Transfer, pull_lines
from almagent.adapters.registry_auth import Login
from almagent.core.frozen import frozen
from almagent.core.imageref import ImageRefError, parse_image, registry_host, split
from almagent.core.model import RegistryLogin
from almagent.journal import logger
from almagent.ports import Image, Progress, Refused, Unavailable

CONFLICT = 409  # another name or a container needs it
LOOK = "look"  # what the calls around a pull are counted as: they go well whatever becomes of it

log = logger()


@frozen
class Wanted:
    """What one pull is about."""

    reference: str  # as it was asked for
    repository: str
    version: str  # tag or digest
    login: Login

    @property
    def name(self) -> str:
        return full_name(self.repository, self.version)

    @property
    def by_digest(self) -> bool:
        return ":" in self.version


class Images:
    def __init__(
        self,
        door: EngineDoor,
        album: Album,
        *,
        min_free_bytes: int,
        keep_images: int,
        idle: float,
        docker_config: Path | None,
    ) -> None:
        """`idle`: seconds a pull may go without a word. `docker_config`: the file with the host's logins."""
        self._door = door
        self._album = album
        self._min_free = min_free_bytes
        self._keep_images = keep_images
        self._idle = idle
        self._docker_config = docker_config
        self._kept: Collection[str] = ()  # ids that the last collection was told to keep

    async def pull(self, image: str, login: RegistryLogin | None, progress: Progress) -> Image:
        """Raises Refused, Unavailable. See the port."""
        wanted = await self._wanted(image, login)
        what = f"pull {wanted.reference}"
        if wanted.by_digest:  # a digest names its content: there is nothing newer to ask for
            present = await self._door.call(what, lambda c: _find(c, wanted.name), name=LOOK)
            if present is not None:
                return present
        engine = await self._door.call(what, lambda c: manifest.describe(c.info()), name=LOOK)
        await self._admit(engine, wanted)
        await self._door.call(what, lambda c: _begin(c, self._album, wanted), name=LOOK)
        try:
            with self._door.counted("pull"):
                digest = await self._transfer(wanted, progress)
        except RateLimited as exc:
            raise await self._how_long(engine, wanted, exc) from exc
        return await self._door.call(
            what, lambda c: _end(c, self._album, wanted, digest), name=LOOK
        )

    async def collect(self, keep: Collection[str]) -> None:
        """See the port; the latest few of the others stay, too. Raises Unavailable."""
        self._kept = frozenset(keep)
        await self._collect(self._keep_images)

    async def _wanted(self, image: str, login: RegistryLogin | None) -> Wanted:
        try:
            reference = parse_image(image)
        except ImageRefError as exc:
            raise Refused(f"cannot pull an image: {exc}") from exc
        host = registry_host(reference)
        if login is not None:
            found: Login = {
                "username": login.username,
                "password": login.password.reveal(),
                "serveraddress": host,
            }
        else:
            found = await registry_auth.find(
                host, self._docker_config or registry_auth.config_file()
            )
        return Wanted(reference, *split(reference), found)

    async def _admit(self, engine: EngineFacts, wanted: Wanted) -> None:
        """Is there room for it? Raises Refused, with both figures."""

        async def measure() -> int | None:
            return await space.free_bytes(self._door, engine.root)

        async def make_room() -> None:
            await self._collect(0)

        await space.admit(wanted.reference, self._min_free, measure, make_room)
        free = await measure()
        if free is None or free >= self._min_free + space.ROOMY:
            return
        layers = await self._door.call(f"pull {wanted.reference}", _local_layers, name=LOOK)
        size = await manifest.size(engine, wanted.repository, wanted.version, wanted.login, layers)
        await space.admit(wanted.reference, self._min_free + size, measure, make_room)

    async def _transfer(self, wanted: Wanted, progress: Progress) -> str:
        transfer = Transfer(wanted.reference)
        what = f"pull {wanted.reference}"
        lines = self._door.stream(
            what,
            lambda c: pull_lines(c, wanted.repository, wanted.version, wanted.login),
            idle=self._idle,
        )
        async with aclosing(lines):
            async for line in lines:
                transfer.take(line)
                progress(what, transfer.done, transfer.total)
        transfer.end()
        return transfer.digest

    async def _how_long(
        self, engine: EngineFacts, wanted: Wanted, limited: RateLimited
    ) -> Unavailable:
        """The engine drops the registry's `Retry-After`: ask for it."""
        wait = await manifest.retry_after(engine, wanted.repository, wanted.version, wanted.login)
        return Unavailable(str(limited), retry_after=wait or limited.retry_after)

    async def _collect(self, spare: int) -> None:
        what, keep = "collect old images", self._kept
        old = await self._door.call(what, lambda c: self._album.old(_used(c) | set(keep), spare))
        for image_id in old:
            remove = partial(_remove, album=self._album, image_id=image_id)
            await self._door.call(what, remove, timeout=LONG)


def full_name(repository: str, version: str) -> str:
    return f"{repository}{'@' if ':' in version else ':'}{version}"


def describe(data: Mapping[str, Any], digest: str) -> Image:
    """An image as the engine tells it."""
    config = data.get("Config") or {}
    exposed = [port.partition("/") for port in config.get("ExposedPorts") or {}]
    ports = {
        int(number) for number, _, kind in exposed if kind in {"", "tcp"} and number.isdecimal()
    }
    return Image(data["Id"], digest, tuple(sorted(ports)), config.get("Labels") or {})


def _local_layers(client: Any) -> list[list[str]]:
    """The layers of each image that is here, by the digests of their unpacked content."""
    return [
        client.inspect_image(row["Id"])["RootFS"].get("Layers") or [] for row in client.images()
    ]


def _find(client: Any, name: str) -> Image | None:
    try:
        return describe(client.inspect_image(name), name.partition("@")[2])
    except client.NotFound:
        return None


def _begin(client: Any, album: Album, wanted: Wanted) -> None:
    present = _find(client, wanted.name)
    ids = [row["Id"] for row in client.images()]
    album.begin(wanted.reference, ids, present.id if present else None)


def _end(client: Any, album: Album, wanted: Wanted, digest: str) -> Image:
    """By the digest that was pulled: the tag may have been moved by somebody meanwhile."""
    name = full_name(wanted.repository, digest) if digest else wanted.name
    data = client.inspect_image(name)
    album.end(wanted.reference, data["Id"])
    return describe(data, digest)


def _used(client: Any) -> set[str]:
    return {row["ImageID"] for row in client.containers(all=True)}


def _remove(client: Any, album: Album, image_id: str) -> None:
    """Where somebody else gave it a name, too, or uses it just now, it is theirs from now on."""
    try:
        client.remove_image(image_id)
        log.info("image.removed", image=image_id)
    except client.NotFound:
        pass
    except client.Answer as exc:
        if exc.status_code != CONFLICT:
            raise
        log.info("image.left", image=image_id)
    album.forget(image_id)
