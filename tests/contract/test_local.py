"""The local surface over real sockets: one place, one owner, and nothing for strangers."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from pydantic import TypeAdapter

from almagent.local import Local, Surface, bind
from almagent.ports import Refused, Unavailable
from almagent.socketpath import SOCKET
from almagent.status import Snapshot
from tests.pure.test_metrics import snapshot


@dataclass
class Asked:
    """A surface that notes what it is asked."""

    loops: dict[str, bool] = field(default_factory=lambda: {"poll": True})
    told: list[str] = field(default_factory=list)

    @property
    def surface(self) -> Surface:
        return Surface(
            status=snapshot,
            loops=lambda: self.loops,
            metrics=lambda: b"almagent_up 1.0\n",
            reconcile=lambda: self.told.append("reconcile"),
            stop=lambda: self.told.append("stop"),
        )


@pytest.fixture
def asked() -> Asked:
    return Asked()


@asynccontextmanager
async def client(directory: Path) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.UnixConnector(str(directory / SOCKET))
    async with aiohttp.ClientSession("http://almagent", connector=connector) as session:
        yield session


async def test_status_has_the_schema(tmp_path: Path, asked: Asked):
    async with (
        Local(tmp_path, asked.surface),
        client(tmp_path) as session,
        session.get("/v1/status") as answer,
    ):
        status = TypeAdapter(Snapshot).validate_json(await answer.text(), extra="forbid")
    assert status == snapshot()


async def test_commands_are_passed_on(tmp_path: Path, asked: Asked):
    async with Local(tmp_path, asked.surface), client(tmp_path) as session:
        for path in ("/v1/reconcile", "/v1/stop"):
            async with session.post(path, data=b"ignored") as answer:
                assert (answer.status, await answer.json()) == (202, {"accepted": True})
    assert asked.told == ["reconcile", "stop"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/healthz", 200),
        ("GET", "/v1/nonsense", 404),
        ("GET", "/v1/stop", 405),
        ("POST", "/v1/status", 405),
    ],
)
async def test_what_is_not_offered_is_refused(
    tmp_path: Path, asked: Asked, method: str, path: str, status: int
):
    async with (
        Local(tmp_path, asked.surface),
        client(tmp_path) as session,
        session.request(method, path) as answer,
    ):
        assert answer.status == status
    assert asked.told == []


async def test_health_names_who_is_late(tmp_path: Path, asked: Asked):
    async with Local(tmp_path, asked.surface), client(tmp_path) as session:
        async with session.get("/healthz") as answer:
            assert (answer.status, (await answer.json())["ok"]) == (200, True)
        asked.loops = {"poll": True, "reconcile": False}
        async with session.get("/healthz") as answer:
            assert answer.status == 503
            assert (await answer.json())["late"] == ["reconcile"]


async def test_the_socket_is_roots_whatever_the_umask(tmp_path: Path, asked: Asked):
    before = os.umask(0)
    try:
        async with Local(tmp_path, asked.surface):
            assert stat.S_IMODE((tmp_path / SOCKET).stat().st_mode) == 0o660
            assert [path.name for path in tmp_path.iterdir()] == [SOCKET]
    finally:
        os.umask(before)
    assert list(tmp_path.iterdir()) == []


@contextmanager
def left_by_a_killed_agent(path: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    yield


async def test_a_stale_socket_is_replaced(tmp_path: Path, asked: Asked):
    with left_by_a_killed_agent(tmp_path / SOCKET):
        async with (
            Local(tmp_path, asked.surface),
            client(tmp_path) as session,
            session.get("/healthz") as answer,
        ):
            assert answer.status == 200


async def test_a_live_socket_is_not_stolen(tmp_path: Path, asked: Asked):
    async with Local(tmp_path, asked.surface), client(tmp_path) as session:
        with pytest.raises(Refused, match="another process answers there"):
            bind(tmp_path / SOCKET)
        async with session.get("/healthz") as answer:
            assert answer.status == 200


async def test_what_another_agent_put_there_meanwhile_stays(tmp_path: Path, asked: Asked):
    async with Local(tmp_path, asked.surface):
        (tmp_path / SOCKET).unlink()
        bind(tmp_path / SOCKET).close()
    assert (tmp_path / SOCKET).exists()


async def test_a_deep_directory_is_no_trouble(tmp_path: Path, asked: Asked):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    async with Local(deep, asked.surface):
        assert (deep / SOCKET).is_socket()


def test_a_directory_that_is_not_there(tmp_path: Path):
    with pytest.raises(Unavailable, match=r"cannot listen on .*: No such file"):
        bind(tmp_path / "nowhere" / SOCKET)


# --- over TCP ---


async def test_tcp_has_health_and_metrics_only(tmp_path: Path, asked: Asked, free_port: int):
    base = f"http://127.0.0.1:{free_port}"
    async with (
        Local(tmp_path, asked.surface, f"127.0.0.1:{free_port}"),
        aiohttp.ClientSession() as session,
    ):
        async with session.get(f"{base}/metrics") as answer:
            assert await answer.text() == "almagent_up 1.0\n"
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        async with session.get(f"{base}/healthz") as answer:
            assert answer.status == 200
        async with session.get(f"{base}/v1/status") as answer:
            assert answer.status == 404
        for path in ("/v1/stop", "/v1/reconcile"):
            async with session.post(base + path) as answer:
                assert answer.status == 404
    assert asked.told == []


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:80", 200),
        ("127.0.0.1", 200),
        ("[::1]:9464", 200),
        ("evil.example.com", 403),
        ("evil.example.com:9464", 403),
        ("127.0.0.1.evil.example.com", 403),
        ("10.0.0.1", 403),
    ],
)
async def test_a_page_with_a_name_of_its_own_is_refused(
    tmp_path: Path, asked: Asked, free_port: int, host: str, status: int
):
    url = f"http://127.0.0.1:{free_port}/metrics"
    async with (
        Local(tmp_path, asked.surface, f"127.0.0.1:{free_port}"),
        aiohttp.ClientSession() as session,
        session.get(url, headers={"Host": host}) as answer,
    ):
        assert answer.status == status


async def test_a_taken_port_costs_only_the_monitoring(tmp_path: Path, asked: Asked):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        async with (
            Local(tmp_path, asked.surface, listen),
            client(tmp_path) as session,
            session.get("/healthz") as answer,
        ):
            assert answer.status == 200


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        number: int = sock.getsockname()[1]
        return number
