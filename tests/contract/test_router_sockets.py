"""Counting connections, finding listeners, and connecting: against real sockets in real namespaces."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from almagent.adapters.sockets import accepts, connections, listeners
from almagent.ports import Unavailable
from tests.peers.files import no_more_files
from tests.peers.netns import Lan, Server, dial, inside, lan

SERVER = "10.77.0.2"


@pytest.fixture
def net() -> Iterator[Lan]:
    with lan() as built:
        built.container(SERVER)
        yield built


@pytest.fixture
def pid(net: Lan) -> Iterator[int]:
    """A process that lives in the network namespace of the container."""
    with inside(net.containers[SERVER].path):
        process = subprocess.Popen(["sleep", "60"])
    yield process.pid
    process.kill()
    process.wait()


async def test_counts_open_connections_of_the_container_on_its_ports(net: Lan, pid: int):
    server = Server("it")
    await server.start(net.containers[SERVER].path, SERVER, [80, 81, 82])
    assert await connections(pid, [80, 81]) == 0
    calls = [await dial(net.host.path, SERVER, port) for port in (80, 80, 81, 82)]
    for call in calls:
        await call.ask()
    assert await connections(pid, [80, 81]) == 3
    assert await connections(pid, [82]) == 1
    assert await connections(pid, []) == 0
    assert await connections(os.getpid(), [80, 81]) == 0
    await calls[0].close()
    await gone_to(pid, [80, 81], 2)
    for call in calls[1:]:
        await call.close()
    await gone_to(pid, [80, 81, 82], 0)
    await server.close()


async def gone_to(pid: int, ports: list[int], number: int) -> None:
    async with asyncio.timeout(3):
        while await connections(pid, ports) != number:
            await asyncio.sleep(0.02)


async def test_counts_what_was_not_accepted_yet_and_what_half_closed(net: Lan, pid: int):
    with inside(net.containers[SERVER].path):
        server = socket.create_server((SERVER, 80))
    waiting = await dial(net.host.path, SERVER, 80)
    assert await connections(pid, [80]) == 1
    waiting.writer.write_eof()  # the client has said all, and waits for its answer: CLOSE_WAIT
    await asyncio.sleep(0.05)
    assert await connections(pid, [80]) == 1
    await waiting.close()
    server.close()


@pytest.mark.parametrize("first", ["client", "server"])
async def test_counts_what_the_program_has_closed_and_the_client_has_not_read(
    net: Lan, pid: int, first: str
):
    """The kernel delivers the rest, but only for as long as the container's network is there."""
    with inside(net.containers[SERVER].path):
        server = socket.create_server((SERVER, 80))
    client = await dial(net.host.path, SERVER, 80)
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    accepted, _ = server.accept()
    if first == "client":
        client.writer.write_eof()
        assert accepted.recv(1) == b""
    accepted.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            accepted.send(bytes(65536))
    accepted.close()
    await asyncio.sleep(0.05)
    assert await connections(pid, [80]) == 1
    client.writer.transport.abort()
    server.close()


async def test_counts_ipv6_sockets_too(net: Lan, pid: int):
    with inside(net.containers[SERVER].path):
        server = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)
    call = await dial(net.host.path, SERVER, 80)
    assert await connections(pid, [80]) == 1
    await call.close()
    server.close()


async def test_a_process_that_is_gone_has_no_connections():
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert await connections(ended.pid, [80]) == 0


async def test_finds_who_listens_on_a_port_of_this_host(net: Lan):
    program = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 8081)); "
        "print(flush=True); sys.stdin.read()"
    )
    with inside(net.host.path):
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()  # now it listens
        assert await listeners([8080]) == {}
        found = await listeners([8080, 8081])
    assert list(found) == [8081]
    assert found[8081].startswith("python")
    process.communicate()
    assert await listeners([8081]) == {}


async def test_accepts_is_true_only_when_every_port_accepts(net: Lan):
    server = Server("it")
    await server.start(net.host.path, "127.0.0.1", [80, 81])
    with inside(net.host.path):
        assert await accepts("127.0.0.1", [80, 81], 2)
        assert await accepts("127.0.0.1", [], 2)
        assert not await accepts("127.0.0.1", [80, 82], 2)
    await server.close()


async def test_without_files_nothing_is_known(net: Lan):
    """Least of all that a candidate does not accept."""
    with no_more_files():
        for question in (connections(os.getpid(), [80]), listeners([80])):
            with pytest.raises(Unavailable, match="TCP sockets: Too many open files"):
                await question
        with pytest.raises(Unavailable, match="cannot make a TCP socket: Too many open files"):
            await accepts(SERVER, [80], 2)


async def test_accepts_ends_at_its_deadline(net: Lan):
    with inside(net.host.path):
        net.containers[SERVER].ip("link set eth0 down")
        started = time.monotonic()
        assert not await accepts(SERVER, [80], 0.2)
        assert time.monotonic() - started < 1
