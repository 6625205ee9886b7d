"""Looking without the SDK: it tells what the SDK tells, of a real engine and of a broken one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import docker
import pytest

from almagent.adapters.docker_engine.door import EngineDoor
from almagent.adapters.docker_engine.labels import Owner
from almagent.core.model import Spec
from almagent.ports import PortError, Refused, Unavailable
from tests.peers.engine_door import ENGINE
from tests.peers.engine_world import What, docker_world, release

JSON = b"HTTP/1.1 500 Sorry\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"


def error(text: bytes, status: bytes = b"500") -> bytes:
    body = b'{"message": "%s"}' % text
    return (JSON % (len(body), body)).replace(b"500", status, 1)


async def both(host: str, look: Callable[[Any], Any], deadline: float = 10.0) -> list[Any]:
    """What the reader and the SDK say, or the error that each of them ends with."""
    said: list[Any] = []
    for name in ("look", "call"):
        door = EngineDoor(host, deadline)
        try:
            said.append(await getattr(door, name)("look", look))
        except PortError as exc:
            said.append(exc)
        finally:
            door.close()
    return said


async def test_both_see_the_same(docker_api: docker.APIClient, stack_id: str, tmp_path: Path):
    async with docker_world(docker_api, stack_id, tmp_path) as world:
        engine = world.make("Web01")
        image = await engine.pull(world.publish("app:1", What()), None)
        wanted = release(image.id, "app:1", commit='c0ffee "&?')
        created = await engine.create(Spec("0" * 16, "app:1"), wanted, publish=False)
        filters = Owner(stack_id, "Web01").filters
        looks: list[Callable[[Any], Any]] = [
            lambda c: c.containers(all=True, filters=filters),
            lambda c: c.containers(all=False, filters=filters),
            lambda c: c.inspect_container(created),
            lambda c: c.version(),
            lambda c: sorted(c.info()),
        ]
        for look in looks:
            read, by_sdk = await both(f"unix://{ENGINE}", look)
            assert read == by_sdk
        (row,) = (await both(f"unix://{ENGINE}", looks[0]))[0]
        assert row["Id"] == created


@pytest.mark.parametrize("container_id", ["f" * 64, "a?b"])
async def test_what_is_not_there_is_told_by_both(container_id: str):
    def look(client: Any) -> str:
        try:
            client.inspect_container(container_id)
        except client.NotFound as exc:
            assert isinstance(exc, client.Answer)
            return str(exc.explanation)
        return "found"

    read, by_sdk = await both(f"unix://{ENGINE}", look)
    assert read == by_sdk
    assert "o such container" in read


@asynccontextmanager
async def engine_that_says(path: Path, said: bytes, *, then_ends: bool) -> AsyncIterator[str]:
    """To every request but that for its version, which the SDK needs first."""
    version = b'{"ApiVersion": "1.41"}'
    done = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if head.startswith(b"GET /version"):
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(version) + version
                )
                continue
            writer.write(said)
            break
        if not then_ends:
            await done.wait()
        writer.close()

    def quietly(*streams: Any) -> Any:
        async def end() -> None:
            try:
                await answer(*streams)
            except (asyncio.IncompleteReadError, OSError):
                streams[1].close()

        return end()

    async with await asyncio.start_unix_server(quietly, path):
        try:
            yield f"unix://{path}"
        finally:
            done.set()


@pytest.mark.parametrize(
    ("said", "then_ends", "kind", "words"),
    [
        (error(b"no, never"), True, Refused, "cannot look: no, never"),
        (error(b"containerd.sock is away"), True, Unavailable, "containerd.sock is away"),
        (error(b"later", b"503"), True, Unavailable, "later"),
        (b"HTTP/1.0 400 Bad\r\n\r\n<p>no JSON", True, Refused, "cannot look: <p>no JSON"),
        (b"HTTP/1.0 200 OK\r\n\r\n<html>", True, Unavailable, "an answer that is not valid"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + b"[" * 100_000, True, Unavailable, "not valid"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[", True, Unavailable, "cannot reach"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", True, Unavailable, "cannot reach"),
        (b"", True, Unavailable, "cannot reach"),
        (b"HTTP/1.0 403 Forbidden\r\n\r\n", True, Refused, "Forbidden"),
        (b"HTTP/1.0 200 OK\r\n\r\n[", False, Unavailable, "cannot look: "),
        (b"", False, Unavailable, "cannot look: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[", False, Unavailable, "cannot look: "),
    ],
)
async def test_a_fault_means_the_same_to_both(
    tmp_path: Path, said: bytes, then_ends: bool, kind: type[PortError], words: str
):
    async with engine_that_says(tmp_path / "docker.sock", said, then_ends=then_ends) as host:
        for exc in await both(host, lambda c: c.containers(all=True), deadline=0.5):
            assert isinstance(exc, kind)
            assert words in str(exc)


async def test_nobody_there(tmp_path: Path):
    read, by_sdk = await both(f"unix://{tmp_path}/nobody", lambda c: c.info())
    assert isinstance(read, Unavailable)
    assert str(read) == str(by_sdk)
    assert str(read) == "cannot look: cannot reach the Docker engine: No such file or directory"


async def test_over_tcp_the_sdk_looks():
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.0 200 OK\r\n\r\n{"ApiVersion": "1.41"}')
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        door = EngineDoor(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert await door.look("look", lambda c: isinstance(c, docker.APIClient))
        door.close()


class Upgraded:
    """An engine that takes one API version only, another one after its upgrade."""

    def __init__(self) -> None:
        self.takes = "1.41"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        if path == "/version":
            status, body = "200 OK", f'{{"ApiVersion": "{self.takes}"}}'
        elif path.startswith(f"/v{self.takes}/"):
            status, body = "200 OK", "[]"
        else:
            status, body = "400 Bad Request", '{"message": "client version 1.41 is too old"}'
        head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        writer.close()


@pytest.mark.parametrize("name", ["look", "call"])
async def test_an_engine_that_was_upgraded_is_met_anew(tmp_path: Path, name: str):
    engine, door = Upgraded(), EngineDoor(f"unix://{tmp_path}/docker.sock")

    async def ask() -> Any:
        return await getattr(door, name)("look", lambda c: c.containers(all=True))

    async with await asyncio.start_unix_server(engine.answer, tmp_path / "docker.sock"):
        assert await ask() == []
        engine.takes = "1.44"
        with pytest.raises(Unavailable, match="too old"):  # which says nothing of what was asked
            await ask()
        assert await ask() == []
    door.close()


async def test_a_stream_that_breaks_off_makes_the_engine_be_met_anew(tmp_path: Path):
    engine, door = Upgraded(), EngineDoor(f"unix://{tmp_path}/docker.sock")
    async with await asyncio.start_unix_server(engine.answer, tmp_path / "docker.sock"):
        assert await door.call("look", lambda c: c.containers(all=True)) == []
        engine.takes = "1.44"
        with pytest.raises(Unavailable, match="too old"):
            async for _ in door.stream("watch", lambda c: iter(c.containers(all=True)), idle=1):
                pass
        assert await door.call("look", lambda c: c.containers(all=True)) == []
    door.close()
