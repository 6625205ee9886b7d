"""The local surface over real sockets: one place, one owner, and nothing for strangers."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
import pytest
from pydantic import TypeAdapter
from structlog.testing import capture_logs

from almagent.local import BODY_LIMIT, MOST, Local, Surface, bind
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


# --- clients that misbehave ---


@contextmanager
def dialled(directory: Path, port: int) -> Iterator[socket.socket]:
    """A connection to the TCP port, or where that is 0 to the unix socket, which never blocks."""
    with socket.socket(socket.AF_INET if port else socket.AF_UNIX) as sock:
        sock.connect(("127.0.0.1", port) if port else str(directory / SOCKET))
        sock.setblocking(False)
        yield sock


async def received(sock: socket.socket, pause: float = 0.0) -> bytes:
    """All that comes until the other side closes. `pause`: seconds between two looks."""
    loop, whole = asyncio.get_running_loop(), b""
    async with asyncio.timeout(10):
        with suppress(ConnectionResetError):
            while part := await loop.sock_recv(sock, 65536):
                whole += part
                await asyncio.sleep(pause)
    return whole


async def answer_to(directory: Path, port: int, raw: bytes) -> bytes:
    with dialled(directory, port) as sock:
        sock.send(raw)
        return await received(sock)


@pytest.fixture(params=["unix", "tcp"])
def port(request: pytest.FixtureRequest) -> int:
    number: int = request.getfixturevalue("free_port") if request.param == "tcp" else 0
    return number


def listen(port: int) -> str:
    return f"127.0.0.1:{port}" if port else ""


GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/reconcile HTTP/1.1\r\nHost: localhost\r\n"


async def test_connections_without_number_do_not_use_up_the_files(
    tmp_path: Path, asked: Asked, port: int
):
    async with Local(tmp_path, asked.surface, listen(port)):
        with ExitStack() as open_:
            idle = [open_.enter_context(dialled(tmp_path, port)) for _ in range(MOST)]
            for _ in range(3):
                assert await answer_to(tmp_path, port, b"") == b""
            idle[0].send(GET)
            assert b" 200 OK\r\n" in await received(idle[0])
            assert b" 200 OK\r\n" in await answer_to(tmp_path, port, GET)


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(GET[:20], id="half a head"),
        pytest.param(POST + b"Content-Length: 9\r\n\r\nhalf", id="half a body"),
        pytest.param(POST + b"Transfer-Encoding: chunked\r\n\r\n9\r\nhalf", id="half a chunk"),
    ],
)
async def test_a_request_that_does_not_come_ends(
    tmp_path: Path, asked: Asked, port: int, part: bytes
):
    async with Local(tmp_path, asked.surface, listen(port), patience=0.2):
        assert await answer_to(tmp_path, port, part) == b""
    assert asked.told == []


async def test_a_client_that_hardly_reads_ends(tmp_path: Path, asked: Asked, port: int):
    size = 50 << 20  # far more than the kernel keeps for the client
    surface = replace(asked.surface, metrics=lambda: bytes(size))
    async with Local(tmp_path, surface, listen(port), patience=0.2):
        with dialled(tmp_path, port) as sock:
            sock.send(GET.replace(b"/healthz", b"/metrics"))
            assert len(await received(sock, pause=0.01)) < size


async def test_nothing_is_done_before_the_whole_request_is_there(tmp_path: Path, asked: Asked):
    async with Local(tmp_path, asked.surface):
        with dialled(tmp_path, 0) as sock:
            sock.send(POST + b"Content-Length: 4\r\n\r\nha")
            assert b" 200 OK\r\n" in await answer_to(tmp_path, 0, GET)
            assert asked.told == []
            sock.send(b"lf")
            assert b" 202 Accepted\r\n" in await received(sock)
        assert asked.told == ["reconcile"]


async def test_a_large_body_is_refused(tmp_path: Path, asked: Asked):
    async with (
        Local(tmp_path, asked.surface),
        client(tmp_path) as session,
        session.post("/v1/reconcile", data=bytes(BODY_LIMIT + 1)) as answer,
    ):
        assert answer.status == 413
    assert asked.told == []


@contextmanager
def library_log() -> Iterator[io.StringIO]:
    """What libraries log through the standard library, whatever its level."""
    written, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(written), root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield written
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\r\n\r\n", id="TLS"),
        pytest.param(POST + b"Content-Length: abc\r\n\r\n", id="no length"),
        pytest.param(
            POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="two lengths",
        ),
        pytest.param(POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n", id="no chunk"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 9000, id="long header"),
    ],
)
async def test_what_a_client_does_wrong_is_not_logged(
    tmp_path: Path, asked: Asked, port: int, raw: bytes
):
    with library_log() as written, capture_logs() as events:
        async with Local(tmp_path, asked.surface, listen(port)):
            answer = await answer_to(tmp_path, port, raw)
    assert b" 400 Bad Request\r\n" in answer
    assert b"\r\nServer:" not in answer
    assert (written.getvalue(), events, asked.told) == ("", [], [])


async def test_a_client_that_goes_in_the_middle_is_not_logged(tmp_path: Path, asked: Asked):
    with library_log() as written, capture_logs() as events:
        async with Local(tmp_path, asked.surface):
            with dialled(tmp_path, 0) as sock:
                sock.send(POST + b"Content-Length: 4\r\n\r\nha")
            assert b" 200 OK\r\n" in await answer_to(tmp_path, 0, GET)
    assert (written.getvalue(), events, asked.told) == ("", [], [])


async def test_what_is_packed_is_not_unpacked(tmp_path: Path, asked: Asked):
    packed = POST + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nrags"
    with library_log() as written:
        async with Local(tmp_path, asked.surface):
            assert b" 202 Accepted\r\n" in await answer_to(tmp_path, 0, packed)
    assert written.getvalue() == ""


async def test_a_fault_of_ours_is_one_event(tmp_path: Path, asked: Asked):
    def fail() -> bytes:
        raise ZeroDivisionError

    surface = replace(asked.surface, metrics=fail)
    with library_log() as written, capture_logs() as events:
        async with (
            Local(tmp_path, surface),
            client(tmp_path) as session,
            session.get("/metrics") as answer,
        ):
            assert answer.status == 500
            assert "Server" not in answer.headers
    assert [(e["event"], e["log_level"], e["path"]) for e in events] == [
        ("local.failed", "error", "/metrics")
    ]
    assert written.getvalue() == ""


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
