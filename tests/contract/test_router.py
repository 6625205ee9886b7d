"""What every Router promises: the one over nftables, with real packets, and the one in memory.

Two containers stand ready at OLD and NEW; each answers every line with its own address. Docker's proxy stands
ready at the doors; here it answers with the door instead of asking the container.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import pytest

from almagent.adapters.router import NftRouter
from almagent.core.model import Target
from almagent.ports import Refused, Router
from tests.fakes.router import Kernel, MemoryRouter
from tests.peers.netns import Server, dial, inside, lan, run

OLD, NEW = "10.77.0.2", "10.77.0.3"
PORTS = (8080, 8443)
GATEWAY, DOORS = "10.77.0.1", {OLD: 32768, NEW: 32770}  # the first door of each
CLOSED = "closed"

Ask = Callable[[], Awaitable[str]]  # who answers on this connection?


def to(address: str, ports: Sequence[int] = PORTS) -> dict[int, Target]:
    """All ports to that container, each with a door of its own."""
    doors = (f"{GATEWAY}:{DOORS[address] + number}" for number in range(len(ports)))
    return {port: Target(address, door) for port, door in zip(ports, doors, strict=True)}


class Probing(Router, Protocol):
    async def probe(self, port: int, address: str) -> bool: ...


@dataclass
class Site:
    """One implementation and the world around it."""

    make: Callable[[], Probing]  # a router, as after a restart of the agent
    connect: Callable[..., Awaitable[Ask]]  # a port; neighbour=True: from another network
    flush: Callable[[], object]  # somebody else removes all rules

    async def who(self, port: int, *, neighbour: bool = False) -> str:
        try:
            ask = await self.connect(port, neighbour=neighbour)
        except OSError:
            return CLOSED
        return await ask()


@asynccontextmanager
async def memory_site() -> AsyncIterator[Site]:
    kernel = Kernel()

    async def connect(port: int, *, neighbour: bool = False) -> Ask:
        address = kernel.connect(port, neighbour=neighbour)

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
                for _, door in to(address).values():
                    proxy = Server(door)
                    stack.push_async_callback(proxy.close)
                    await proxy.start(net.host.path, GATEWAY, [int(door.partition(":")[2])])
            other = net.neighbour("docker0")

            async def connect(port: int, *, neighbour: bool = False) -> Ask:
                client = other if neighbour else net.outside
                dialogue = await dial(client.path, "192.0.2.1", port)
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
    await site.make().point(to(OLD))
    assert await site.make().routes() == to(OLD)
    assert [await site.who(port) for port in PORTS] == [OLD, OLD]


async def test_containers_of_other_networks_come_through_the_door(site: Site):
    router = site.make()
    await router.point(to(OLD))
    doors = [target.door for target in to(OLD).values()]
    assert [await site.who(port, neighbour=True) for port in PORTS] == doors
    await router.point(to(NEW))
    doors = [target.door for target in to(NEW).values()]
    assert [await site.who(port, neighbour=True) for port in PORTS] == doors


async def test_an_open_connection_through_the_door_stays(site: Site):
    router = site.make()
    await router.point(to(OLD))
    before = await site.connect(8080, neighbour=True)
    for targets in (to(NEW), {8080: Target(NEW)}, {}):
        await router.point(targets)
        assert await before() == to(OLD)[8080].door


async def test_without_a_door_everybody_goes_to_the_container(site: Site):
    router = site.make()
    mixed = to(OLD) | {8443: Target(OLD)}
    await router.point(mixed)
    assert await router.routes() == mixed
    assert await site.who(8080, neighbour=True) == mixed[8080].door
    assert await site.who(8443, neighbour=True) == OLD


async def test_a_door_that_has_moved_is_followed(site: Site):
    router = site.make()
    await router.point(to(OLD))
    moved = {8080: Target(OLD, to(NEW)[8080].door)}
    await router.point(moved)
    assert await router.routes() == moved
    assert await site.who(8080, neighbour=True) == to(NEW)[8080].door


async def test_pointing_again_changes_nothing(site: Site):
    router = site.make()
    await router.point(to(OLD))
    await router.point(to(OLD))
    assert await router.routes() == to(OLD)
    assert await site.who(8080) == OLD


async def test_new_connections_go_to_the_new_container_and_open_ones_stay(site: Site):
    router = site.make()
    await router.point(to(OLD))
    before = await site.connect(8080)
    assert await before() == OLD
    await router.point(to(NEW))
    assert await router.routes() == to(NEW)
    assert [await site.who(port) for port in PORTS] == [NEW, NEW]
    assert await before() == OLD


async def test_a_port_that_is_not_named_any_more_is_closed(site: Site):
    router = site.make()
    await router.point(to(OLD))
    await router.point(to(NEW, [8443]))
    assert await router.routes() == to(NEW, [8443])
    assert [await site.who(port) for port in PORTS] == [CLOSED, NEW]


async def test_no_ports_close_everything_but_open_connections(site: Site):
    router = site.make()
    await router.point(to(OLD))
    before = await site.connect(8080)
    assert await before() == OLD
    await router.point({})
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
    await router.point(to(OLD))
    async with hearing(router) as heard:
        site.flush()
        assert await is_heard(heard)
    assert await router.routes() == {}
    assert await site.who(8080) == CLOSED
    await router.point(to(OLD))
    assert await router.routes() == to(OLD)
    assert await site.who(8080) == OLD


async def test_its_own_work_is_not_news(site: Site):
    router = site.make()
    async with hearing(router) as heard:
        await router.point(to(OLD))
        await router.point(to(NEW))
        await router.clear()
        assert not await is_heard(heard, 0.2)


async def test_clear_closes_every_port_and_may_be_repeated(site: Site):
    router = site.make()
    await router.point(to(OLD))
    await router.clear()
    await router.clear()
    assert await router.routes() == {}
    assert await site.who(8080) == CLOSED


async def test_probe_tells_whether_connections_arrive(site: Site):
    router = site.make()
    assert not await router.probe(8080, OLD)
    await router.point(to(OLD))
    assert await router.probe(8080, OLD)
    assert not await router.probe(8080, NEW)


@pytest.mark.parametrize(
    ("port", "target"),
    [
        (0, Target(OLD)),
        (65536, Target(OLD)),
        (80, Target("fd00::2")),
        (80, Target("web")),
        (80, Target("")),
        (80, Target(OLD, "web:80")),
        (80, Target(OLD, GATEWAY)),
        (80, Target(OLD, f"{GATEWAY}:")),
        (80, Target(OLD, f"{GATEWAY}:0")),
        (80, Target("", f"{GATEWAY}:80")),
    ],
    ids=str,
)
async def test_refuses_what_is_no_port_or_no_address(site: Site, port: int, target: Target):
    router = site.make()
    await router.point(to(OLD))
    with pytest.raises(Refused, match="cannot route"):
        await router.point({port: target})
    assert await router.routes() == to(OLD)
