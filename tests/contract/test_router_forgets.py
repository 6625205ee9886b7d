"""What connection tracking keeps of a connection that has ended, or never began, must not lead the next one astray."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from almagent.adapters.nft import ruleset, timeouts
from almagent.adapters.router import NftRouter
from almagent.core.model import Target
from tests.contract.conftest import TABLE
from tests.peers.netns import Dialogue, Lan, Server, dial, listening, run, unconnected

OLD, NEW, HOST = "10.77.0.2", "10.77.0.3", "192.0.2.1"
PORT, CLIENT_PORT = 8080, 45678
TO_OLD = {PORT: Target(OLD, "10.77.0.1:32768")}
TO_NEW = {PORT: Target(NEW, "10.77.0.1:32770")}
SETTINGS = Path("/proc/sys/net/netfilter")


@pytest.fixture
async def new(net: Lan) -> AsyncIterator[None]:
    net.container(OLD)
    async with AsyncExitStack() as stack:
        for where, address, port in (
            (net.container(NEW).path, NEW, PORT),
            (net.host.path, "10.77.0.1", 32770),
        ):
            server = Server(NEW)
            stack.push_async_callback(server.close)
            await server.start(where, address, [port])
        yield


async def connect(namespace: Path, address: str) -> socket.socket:
    """From the same source port each time."""
    sock = unconnected(namespace)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", CLIENT_PORT))
    try:
        async with asyncio.timeout(8):
            await asyncio.get_running_loop().sock_connect(sock, (address, PORT))
    except BaseException:
        sock.close()
        raise
    return sock


async def who(sock: socket.socket) -> str:
    dialogue = Dialogue(*await asyncio.open_connection(sock=sock))
    answer = await dialogue.ask()
    await dialogue.close()
    return answer


async def reset_by(listener: socket.socket, client: socket.socket) -> None:
    """The server ends the connection without a FIN, as a program that dies half way through a request does."""
    loop = asyncio.get_running_loop()
    listener.setblocking(False)
    accepted, _ = await loop.sock_accept(listener)
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    accepted.close()
    with pytest.raises(ConnectionResetError):
        await loop.sock_recv(client, 1)
    client.close()


@pytest.mark.parametrize(
    ("client", "address"),
    [("outside", HOST), ("host", HOST), ("host", "127.0.0.1"), ("container", HOST)],
)
async def test_after_a_reset_the_same_source_port_finds_the_new_container(
    net: Lan, router: NftRouter, new: None, client: str, address: str
):
    clients = {"outside": net.outside, "host": net.host, "container": net.container("10.77.0.4")}
    namespace = clients[client].path
    await router.point(TO_OLD)
    with listening(net.containers[OLD].path, OLD, PORT) as old:
        await reset_by(old, await connect(namespace, address))
    await router.point(TO_NEW)
    assert await who(await connect(namespace, address)) == NEW


async def test_after_a_reset_by_the_old_door_too(net: Lan, router: NftRouter, new: None):
    neighbour = net.neighbour("docker0")
    await router.point(TO_OLD)
    with listening(net.host.path, "10.77.0.1", 32768) as old:
        await reset_by(old, await connect(neighbour.path, HOST))
    await router.point(TO_NEW)
    assert await who(await connect(neighbour.path, HOST)) == NEW


async def test_an_attempt_that_was_not_answered_finds_the_new_container_when_it_is_repeated(
    net: Lan, router: NftRouter, new: None
):
    """The old container's queue is full, so the kernel there drops the SYN; clients repeat it after 1 s."""
    await router.point(TO_OLD)
    with listening(net.containers[OLD].path, OLD, PORT) as old:
        old.listen(0)
        queued = await dial(net.outside.path, HOST, PORT)
        attempt = asyncio.create_task(connect(net.outside.path, HOST))
        await asyncio.sleep(0.2)
        assert not attempt.done()
        await router.point(TO_NEW)
        assert await who(await attempt) == NEW
        await queued.close()


async def test_a_closed_connection_is_forgotten_before_docker_tidies_up(
    net: Lan, router: NftRouter, new: None
):
    """Docker deletes entries of an ended container by the client's address and port, whose ever they are by then."""
    entries = ("conntrack", "-L", "-p", "tcp", "--orig-port-dst", str(PORT))
    await router.point(TO_NEW)
    client = await connect(net.outside.path, HOST)
    assert f"src={NEW} " in run(*entries)
    assert await who(client) == NEW
    await asyncio.sleep(2)
    assert f"src={NEW} " not in run(*entries)


async def test_the_times_of_the_host_are_kept(net: Lan, router: NftRouter, new: None):
    (SETTINGS / "nf_conntrack_tcp_timeout_established").write_text("1234")
    await router.point(TO_NEW)
    run("nft", "add table ip observer")
    run("nft", "add chain ip observer forward { type filter hook forward priority 0; }")
    expires = "ct state established ct expiration 1200s-1234s"
    run("nft", f"add rule ip observer forward tcp dport {PORT} {expires} counter")
    await who(await connect(net.outside.path, HOST))
    assert "counter packets 0" not in run("nft", "list", "table", "ip", "observer")


async def test_a_changed_time_of_the_host_asks_for_new_rules(router: NftRouter):
    await router.point(TO_NEW)
    assert await router.routes() == TO_NEW
    (SETTINGS / "nf_conntrack_tcp_timeout_established").write_text("1234")
    assert await router.routes() == {}
    await router.point(TO_NEW)
    assert await router.routes() == TO_NEW


def test_the_spelling_of_newer_versions_of_nft_is_understood():
    """As 1.1.3 and 1.1.7 print it, on a system without /etc/protocols."""
    text = ruleset.render(TABLE, "br0", TO_NEW, {**timeouts.policy(), "unack": 90061})
    newer = (
        text.replace("protocol tcp", "protocol 6")
        .replace("syn_sent : 1", "syn_sent : 1s")
        .replace("time_wait : 1", "time_wait : 1s")
        .replace("close : 0", "close : 0s")
        .replace("unack : 90061", "unack : 1d1h1m1s")
    )
    assert newer != text
    assert ruleset.same(newer, text)
    assert not ruleset.same(newer.replace("close : 0s", "close : 1s"), text)
