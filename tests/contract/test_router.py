"""What every Router promises: the one over nftables, with real packets, and the one in memory.

Two containers stand ready at OLD and NEW; each answers every line with its own address.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import pytest

from almagent.adapters.router import NftRouter
from almagent.ports import Refused, Router
from tests.fakes.router import Kernel, MemoryRouter
from tests.peers.netns import Server, dial, inside, lan, run

OLD, NEW = "10.77.0.2", "10.77.0.3"
PORTS = (8080, 8443)
CLOSED = "closed"

Ask = Callable[[], Awaitable[str]]  # who answers on this connection?


class Probing(Router, Protocol):
    async def probe(self, port: int, address: str) -> bool: ...


@dataclass
class Site:
    """One implementation and the world around it."""

    make: Callable[[], Probing]  # a router, as after a restart of the agent
    connect: Callable[[int], Awaitable[Ask]]
    flush: Callable[[], object]  # somebody else removes all rules

    async def who(self, port: int) -> str:
        try:
            ask = await self.connect(port)
        except OSError:
            return CLOSED
        return await ask()


@asynccontextmanager
async def memory_site() -> AsyncIterator[Site]:
    kernel = Kernel()

    async def connect(port: int) -> Ask:
        address = kernel.connect(port)

        async def ask() -> str:
            return address

        return ask

    yield Site(lambda: MemoryRouter(kernel), connect, kernel.flush)


@asynccontextmanager
async def nft_site() -> AsyncIterator[Site]:
    with lan() as net:
        async with AsyncExitStack() as stack:
            for address in (OLD, NEW):
                server = Server(address)
                stack.push_async_callback(server.close)
                await server.start(net.container(address).path, address, PORTS)

            async def connect(port: int) -> Ask:
                dialogue = await dial(net.outside.path, "192.0.2.1", port)
                stack.push_async_callback(dialogue.close)
                return dialogue.ask

            with inside(net.host.path):
                yield Site(
                    lambda: NftRouter(table="almagent_test", bridge=lambda: net.bridge),
                    connect,
                    lambda: run("nft", "flush", "ruleset"),
                )


@pytest.fixture(params=[memory_site, nft_site], ids=["memory", "nft"])
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    async with request.param() as built:
        yield built


async def test_routes_nothing_before_it_is_told(site: Site):
    assert await site.make().routes() == {}
    assert await site.who(8080) == CLOSED


async def test_points_all_ports_and_survives_the_router(site: Site):
    await site.make().point(PORTS, OLD)
    assert await site.make().routes() == {8080: OLD, 8443: OLD}
    assert [await site.who(port) for port in PORTS] == [OLD, OLD]


async def test_pointing_again_changes_nothing(site: Site):
    router = site.make()
    await router.point(PORTS, OLD)
    await router.point(PORTS, OLD)
    assert await router.routes() == {8080: OLD, 8443: OLD}
    assert await site.who(8080) == OLD


async def test_new_connections_go_to_the_new_container_and_open_ones_stay(site: Site):
    router = site.make()
    await router.point(PORTS, OLD)
    before = await site.connect(8080)
    assert await before() == OLD
    await router.point(PORTS, NEW)
    assert await router.routes() == {8080: NEW, 8443: NEW}
    assert [await site.who(port) for port in PORTS] == [NEW, NEW]
    assert await before() == OLD


async def test_a_port_that_is_not_named_any_more_is_closed(site: Site):
    router = site.make()
    await router.point(PORTS, OLD)
    await router.point([8443], NEW)
    assert await router.routes() == {8443: NEW}
    assert [await site.who(port) for port in PORTS] == [CLOSED, NEW]


async def test_no_ports_close_everything_but_open_connections(site: Site):
    router = site.make()
    await router.point(PORTS, OLD)
    before = await site.connect(8080)
    assert await before() == OLD
    await router.point([], OLD)
    assert await router.routes() == {}
    assert await site.who(8080) == CLOSED
    assert await before() == OLD


@asynccontextmanager
async def hearing(router: Router) -> AsyncIterator[asyncio.Event]:
    """An event that is set when the router says that somebody changed the rules."""
    heard = asyncio.Event()

    async def hear() -> None:
        async for _ in router.changes():
            heard.set()

    task = asyncio.create_task(hear())
    await asyncio.sleep(0)  # now it listens
    yield heard
    task.cancel()


async def is_heard(heard: asyncio.Event, patience: float = 2.0) -> bool:
    try:
        return await asyncio.wait_for(heard.wait(), patience)
    except TimeoutError:
        return False


async def test_rules_removed_by_somebody_are_noticed_and_repaired(site: Site):
    router = site.make()
    await router.point(PORTS, OLD)
    async with hearing(router) as heard:
        site.flush()
        assert await is_heard(heard)
    assert await router.routes() == {}
    assert await site.who(8080) == CLOSED
    await router.point(PORTS, OLD)
    assert await router.routes() == {8080: OLD, 8443: OLD}
    assert await site.who(8080) == OLD


async def test_its_own_work_is_not_news(site: Site):
    router = site.make()
    async with hearing(router) as heard:
        await router.point(PORTS, OLD)
        await router.point(PORTS, NEW)
        await router.clear()
        assert not await is_heard(heard, 0.2)


async def test_clear_closes_every_port_and_may_be_repeated(site: Site):
    router = site.make()
    await router.point(PORTS, OLD)
    await router.clear()
    await router.clear()
    assert await router.routes() == {}
    assert await site.who(8080) == CLOSED


async def test_probe_tells_whether_connections_arrive(site: Site):
    router = site.make()
    assert not await router.probe(8080, OLD)
    await router.point(PORTS, OLD)
    assert await router.probe(8080, OLD)
    assert not await router.probe(8080, NEW)


@pytest.mark.parametrize(
    ("ports", "address"),
    [((0,), OLD), ((65536,), OLD), ((80,), "fd00::2"), ((80,), "web"), ((80,), "")],
)
async def test_refuses_what_is_no_port_or_no_address(site: Site, ports: tuple[int], address: str):
    router = site.make()
    await router.point(PORTS, OLD)
    with pytest.raises(Refused, match="cannot route"):
        await router.point(ports, address)
    assert await router.routes() == {8080: OLD, 8443: OLD}
