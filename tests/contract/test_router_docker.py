"""The switch on a real engine: containers at fixed addresses, each with doors on the gateway of their network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest

from almagent.adapters.router import NftRouter
from almagent.adapters.sockets import accepts, connections
from tests.conftest import SESSION
from tests.peers.images import LABEL, Images
from tests.peers.netns import dial, run, unconnected
from tests.peers.town import (
    DEFAULT,
    ELSEWHERE_GATEWAY,
    GATEWAY,
    HOST,
    NEW,
    OLD,
    OTHER,
    Town,
    build,
)

HTTP, TALK = 18080, 18081
PORTS = (HTTP, TALK)
SERVICE = f"""#!/bin/sh
trap 'exit 0' TERM
mkdir -p /www && hostname > /www/index.html
httpd -p {HTTP} -h /www
nc -ll -p {TALK} -e sh -c 'while read -r line; do hostname; done' &
wait
"""


@pytest.fixture(scope="module")
def town(docker_api: docker.APIClient, images: Images) -> Iterator[Town]:
    image = images.make('CMD ["/service"]', files={"/service": SERVICE})
    with build(docker_api, image, PORTS, {LABEL: SESSION}) as place:
        yield place


@pytest.fixture
async def router(town: Town) -> AsyncIterator[NftRouter]:
    async with asyncio.timeout(10):
        while not all([await accepts(address, PORTS, 1) for address in (OLD, NEW)]):
            await asyncio.sleep(0.05)
    router = NftRouter(table=town.table, bridge=lambda: town.bridge)
    yield router
    await router.clear()


def everybody(town: Town) -> dict[str, tuple[Path, str]]:
    return town.clients() | town.neighbours()


async def fetch(namespace: Path, address: str) -> str:
    """One HTTP request on a connection of its own; who answered. Raises OSError."""
    loop = asyncio.get_running_loop()
    answer = b""
    with unconnected(namespace) as sock:
        async with asyncio.timeout(3):
            await loop.sock_connect(sock, (address, HTTP))
            await loop.sock_sendall(sock, b"GET / HTTP/1.0\r\n\r\n")
            while data := await loop.sock_recv(sock, 4096):
                answer += data
    head, _, body = answer.decode().partition("\r\n\r\n")
    if " 200 " not in head:
        raise OSError(f"not an answer: {answer!r}")
    return body.strip()


@dataclass
class Load:
    answers: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def run(self, namespace: Path, address: str) -> None:
        while True:
            try:
                self.answers.append(await fetch(namespace, address))
            except OSError as exc:
                self.failures.append(repr(exc))
            await asyncio.sleep(0.01)


@asynccontextmanager
async def load_of_all(town: Town) -> AsyncIterator[dict[str, Load]]:
    loads = {kind: Load() for kind in everybody(town)}
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(loads[kind].run(*client)) for kind, client in everybody(town).items()
        ]
        yield loads
        for task in tasks:
            task.cancel()


async def test_no_request_fails_in_twenty_switches(town: Town, router: NftRouter):
    await router.point(town.targets(OLD))
    async with load_of_all(town) as loads:
        for turn in range(20):
            await router.point(town.targets((NEW, OLD)[turn % 2]))
            await asyncio.sleep(0.1)
    for kind, load in loads.items():
        assert load.failures == [], kind
        assert {OLD, NEW} == set(load.answers), kind
        assert len(load.answers) > 40, kind


@pytest.mark.parametrize(
    "kind", ["loopback", "own address", "outside", "container", DEFAULT, OTHER]
)
async def test_an_open_connection_stays_with_the_old_container(
    town: Town, router: NftRouter, kind: str
):
    client = everybody(town)[kind]
    await router.point(town.targets(OLD))
    talk = await dial(*client, TALK)
    assert await talk.ask() == OLD
    assert await connections(town.pids[OLD], PORTS) == 1
    await router.point(town.targets(NEW))
    assert await talk.ask() == OLD
    assert await fetch(*client) == NEW
    assert await connections(town.pids[OLD], PORTS) == 1
    await talk.close()
    async with asyncio.timeout(3):
        while await connections(town.pids[OLD], PORTS):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", [DEFAULT, OTHER])
async def test_containers_of_other_networks_reach_it_at_each_address_of_the_host(
    town: Town, router: NftRouter, kind: str
):
    namespace, _ = town.neighbours()[kind]
    default = town.api.inspect_container(town.ids[DEFAULT])["NetworkSettings"]["Networks"]
    docker0 = default["bridge"]["Gateway"]
    await router.point(town.targets(NEW))
    for address in (HOST, docker0, GATEWAY, ELSEWHERE_GATEWAY):
        assert await fetch(namespace, address) == NEW, address


async def test_pointing_again_repairs_what_a_new_start_took(town: Town, router: NftRouter):
    """Other doors, and a port of the bridge that does not send packets back where they came from."""
    before = town.targets(OLD)
    await router.point(before)
    town.start(OLD)
    after = town.targets(OLD)
    assert all(after[port] != before[port] for port in PORTS)
    assert await router.routes() == before
    await router.point(after)
    async with asyncio.timeout(10):
        while not await accepts(OLD, PORTS, 1):
            await asyncio.sleep(0.05)
    for client in everybody(town).values():
        assert await fetch(*client) == OLD


async def test_a_container_reaches_itself_by_the_address_of_the_host(town: Town, router: NftRouter):
    await router.point(town.targets(OLD))
    assert await fetch(*town.clients()["container"]) == OLD


async def test_probe_names_the_container_that_answers(town: Town, router: NftRouter):
    await router.point(town.targets(OLD))
    assert await router.probe(HTTP, OLD)
    assert not await router.probe(HTTP, NEW)


def foreign_rules(town: Town) -> dict[str, str]:
    """Every table but those of agents, without counters, which move by themselves."""
    tables = run("nft", "list", "tables").splitlines()
    return {
        table: run("nft", "--stateless", "list", *table.split())
        for table in tables
        if "almagent" not in table
    }


async def test_the_rules_of_docker_are_left_alone(town: Town, router: NftRouter):
    before = foreign_rules(town)
    await router.point(town.targets(OLD))
    await router.point({HTTP: town.targets(NEW)[HTTP]})
    await router.clear()
    assert foreign_rules(town) == before
    assert town.table not in run("nft", "list", "tables")


async def test_a_listener_repairs_the_table_within_a_moment(town: Town, router: NftRouter):
    """What the agent does with `changes`: ask for the routes, point again if they are not as they were."""
    await router.point(town.targets(OLD))

    async def repair() -> None:
        async for _ in router.changes():
            if await router.routes() != town.targets(OLD):
                await router.point(town.targets(OLD))

    repairs = asyncio.create_task(repair())
    await asyncio.sleep(0)
    client = town.clients()["loopback"]
    talk = await dial(*client, TALK)
    for _ in range(3):
        run("nft", "delete", "table", "ip", town.table)
        async with asyncio.timeout(1):
            while await router.routes() == {}:
                await asyncio.sleep(0.005)
        assert await fetch(*client) == OLD
    assert await talk.ask() == OLD
    await talk.close()
    repairs.cancel()
