"""What only the router over nftables can get wrong: damaged rules, foreign tables, the guard."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from almagent.adapters.nft.command import Nft
from almagent.adapters.router import NftRouter
from almagent.core.model import Target
from tests.contract.conftest import TABLE
from tests.contract.test_router import hearing, is_heard
from tests.peers.netns import Lan, Server, dial, inside, run

OLD, NEW = "10.77.0.2", "10.77.0.3"
PORT = 8080
LOCALNET = Path("/proc/sys/net/ipv4/conf/br0/route_localnet")


@pytest.fixture
async def served(net: Lan) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for address in (OLD, NEW):
            server = Server(address)
            stack.push_async_callback(server.close)
            await server.start(net.container(address).path, address, [PORT])
        yield


async def who(namespace: Path, address: str, port: int = PORT) -> str:
    dialogue = await dial(namespace, address, port)
    answer = await dialogue.ask()
    await dialogue.close()
    return answer


def load(script: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)


def rule_handle(chain: str, text: str) -> str:
    listing = run("nft", "-a", "list", "chain", "ip", TABLE, chain)
    found = re.search(rf"{re.escape(text)}.* # handle (\d+)", listing)
    assert found, listing
    return found[1]


# --- the ways in ----------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "192.0.2.1", "10.77.0.1"])
async def test_the_host_reaches_the_container_by_each_of_its_addresses(
    net: Lan, router: NftRouter, served: None, address: str
):
    await router.point({PORT: Target(NEW)})
    assert await who(net.host.path, address) == NEW


@pytest.mark.parametrize("address", ["192.0.2.1", "10.77.0.1"])
async def test_a_container_reaches_its_neighbour_by_each_address_of_the_host(
    net: Lan, router: NftRouter, served: None, address: str
):
    await router.point({PORT: Target(NEW)})
    assert await who(net.containers[OLD].path, address) == NEW


async def test_the_client_address_is_kept_for_outside_packets(net: Lan, router: NftRouter):
    listener = net.container(OLD)
    with inside(listener.path):
        server = socket.create_server((OLD, PORT))
    server.setblocking(False)
    await router.point({PORT: Target(OLD)})
    dialogue = await dial(net.outside.path, "192.0.2.1", PORT)
    accepted, peer = await asyncio.get_running_loop().sock_accept(server)
    assert peer[0] == "192.0.2.9"
    accepted.close()
    server.close()
    await dialogue.close()


async def test_connections_to_other_hosts_on_that_port_are_left_alone(
    net: Lan, router: NftRouter, served: None
):
    elsewhere = Server("elsewhere")
    await elsewhere.start(net.outside.path, "192.0.2.9", [PORT])
    await router.point({PORT: Target(OLD)})
    assert await who(net.host.path, "192.0.2.9") == "elsewhere"
    await elsewhere.close()


# --- other networks -------------------------------------------------------------------------------


@pytest.fixture
async def door(net: Lan) -> AsyncIterator[str]:
    """Where Docker's proxy would listen; it answers with this text."""
    proxy, text = Server("10.77.0.1:32768"), "10.77.0.1:32768"
    await proxy.start(net.host.path, "10.77.0.1", [32768])
    yield text
    await proxy.close()


@pytest.mark.parametrize("bridge", ["docker0", "br-0123456789ab", "alm01234567"])
@pytest.mark.parametrize("address", ["192.0.2.1", "10.77.0.1", "10.78.0.1"])
async def test_a_network_of_docker_is_led_to_the_door_at_each_address_of_the_host(
    net: Lan, router: NftRouter, served: None, door: str, bridge: str, address: str
):
    neighbour = net.neighbour(bridge)
    await router.point({PORT: Target(NEW, door)})
    assert await who(neighbour.path, address) == door


@pytest.mark.parametrize("bridge", ["br1", "lan-br-0", "docker1"])
async def test_other_bridges_are_no_networks_of_docker(
    net: Lan, router: NftRouter, served: None, door: str, bridge: str
):
    neighbour = net.neighbour(bridge)
    await router.point({PORT: Target(NEW, door)})
    assert await who(neighbour.path, "192.0.2.1") == NEW


async def test_only_other_networks_are_led_to_the_door(
    net: Lan, router: NftRouter, served: None, door: str
):
    await router.point({PORT: Target(NEW, door)})
    clients = (net.outside, net.host, net.containers[OLD])
    assert [await who(client.path, "192.0.2.1") for client in clients] == [NEW, NEW, NEW]


async def test_the_agents_own_network_may_have_such_a_name(net: Lan, served: None, door: str):
    inhabitant = net.neighbour("alm76543210")
    router = NftRouter(table=TABLE, bridge=lambda: "alm76543210")
    await router.point({PORT: Target(NEW, door)})
    assert await who(inhabitant.path, "192.0.2.1") == NEW


async def test_docker_does_not_lead_it_elsewhere_behind_the_door(
    net: Lan, router: NftRouter, served: None, door: str
):
    """Its own rule for the published port, as the engine writes it."""
    neighbour = net.neighbour("docker0")
    load("table ip nat { chain PREROUTING { type nat hook prerouting priority dstnat; }; }")
    load(f"add rule ip nat PREROUTING ip daddr 10.77.0.1 tcp dport 32768 dnat to {OLD}:{PORT}")
    await router.point({PORT: Target(NEW, door)})
    assert await who(neighbour.path, "192.0.2.1") == door


# --- the guard ------------------------------------------------------------------------------------


async def loopback_reached(net: Lan) -> bool:
    """Whether a container gets through to what listens on 127.0.0.1 of the host only."""
    private = Server("private")
    await private.start(net.host.path, "127.0.0.1", [9999])
    intruder = net.containers[OLD]
    intruder.run("sysctl", "-q", "net.ipv4.conf.eth0.route_localnet=1")
    intruder.ip("route add 127.0.0.1/32 via 10.77.0.1")
    intruder.ip("rule add pref 1 to 127.0.0.1 lookup main")  # before its own loopback
    intruder.ip("rule add pref 2 lookup local")
    intruder.ip("rule del pref 0")
    try:
        return await asyncio.wait_for(who(intruder.path, "127.0.0.1", 9999), 1) == "private"
    except OSError:
        return False
    finally:
        await private.close()


async def test_containers_do_not_reach_services_on_the_loopback_of_the_host(
    net: Lan, router: NftRouter, served: None
):
    await router.point({PORT: Target(OLD)})
    assert LOCALNET.read_text() == "1\n"
    assert not await loopback_reached(net)


async def test_without_the_guard_they_would(net: Lan, router: NftRouter, served: None):
    await router.point({PORT: Target(OLD)})
    run("nft", "flush", "chain", "ip", TABLE, "guard")
    assert await loopback_reached(net)


# --- damage ---------------------------------------------------------------------------------------

DAMAGE = {
    "guard rule deleted": f"flush chain ip {TABLE} guard",
    "all routes deleted, masquerade too": f"flush table ip {TABLE}",
    "prerouting emptied": f"flush chain ip {TABLE} prerouting",
    "output emptied": f"flush chain ip {TABLE} output",
    "a door for a port without a route": f"add rule ip {TABLE} doors tcp dport 81 dnat to 10.77.0.1:81",
    "masquerade deleted": f"flush chain ip {TABLE} postrouting",
    "a rule added": f"add rule ip {TABLE} output tcp dport 8080 accept",
    "a rule before ours": f"insert rule ip {TABLE} routes tcp dport 8080 return",
    "a route to another port": f"add rule ip {TABLE} routes tcp dport 81 dnat to 10.77.0.9:80",
    "a chain added": f"add chain ip {TABLE} extra",
    "a set added": f"add set ip {TABLE} extra {{ type inet_service; }}",
    "switched off": f"add table ip {TABLE} {{ flags dormant; }}",
    "policy drop": f"add chain ip {TABLE} output {{ policy drop; }}",
    "table deleted": f"delete table ip {TABLE}",
    "ruleset flushed": "flush ruleset",
}


@pytest.mark.parametrize("command", DAMAGE.values(), ids=DAMAGE)
async def test_damage_is_noticed_and_repaired_by_pointing_again(
    router: NftRouter, served: None, command: str
):
    await router.point({PORT: Target(OLD)})
    async with hearing(router) as heard:
        run("nft", command)
        assert await is_heard(heard)
    assert await router.routes() == {}
    await router.point({PORT: Target(OLD)})
    assert await router.routes() == {PORT: Target(OLD)}
    assert await router.probe(PORT, OLD)


async def test_one_deleted_route_of_two_shows_as_it_is(router: NftRouter):
    await router.point({80: Target(OLD), 81: Target(OLD)})
    run("nft", "delete", "rule", "ip", TABLE, "routes", "handle", rule_handle("routes", "dport 80"))
    assert await router.routes() == {81: Target(OLD)}


async def test_a_deleted_door_shows_as_it_is(router: NftRouter):
    await router.point({PORT: Target(OLD, "10.77.0.1:32768")})
    async with hearing(router) as heard:
        run("nft", "flush", "chain", "ip", TABLE, "doors")
        assert await is_heard(heard)
    assert await router.routes() == {PORT: Target(OLD)}


async def test_a_bridge_that_does_not_route_loopback_is_repaired(router: NftRouter, served: None):
    await router.point({PORT: Target(OLD)})
    LOCALNET.write_text("0")
    assert await router.routes() == {}
    await router.point({PORT: Target(OLD)})
    assert await router.routes() == {PORT: Target(OLD)}


async def test_another_bridge_needs_another_table(net: Lan, router: NftRouter):
    await router.point({PORT: Target(OLD)})
    net.host.ip("link add br1 type bridge")
    moved = NftRouter(table=TABLE, bridge=lambda: "br1")
    assert await moved.routes() == {}
    await moved.point({PORT: Target(OLD)})
    assert await moved.routes() == {PORT: Target(OLD)}
    assert await router.routes() == {}


async def test_changes_tells_that_it_may_have_missed_some(router: NftRouter):
    await router.point({PORT: Target(OLD)})
    rule = f'add rule ip foreign chain0 counter comment "{"x" * 100}"\n'
    flood = "add table ip foreign\nadd chain ip foreign chain0\n" + rule * 5000
    async with hearing(router) as heard:
        load(flood)  # meanwhile the loop cannot read
        assert await is_heard(heard)


# --- foreign rules --------------------------------------------------------------------------------

FOREIGN = """
table ip foreign {
	map ports { type inet_service : ipv4_addr; elements = { 9090 : 192.0.2.9 }; }
	chain early { type nat hook output priority -150; policy accept; }
	chain pre { type nat hook prerouting priority dstnat; dnat to tcp dport map @ports; }
	chain watch { type filter hook forward priority filter; counter; }
}
table inet almagent_test {
	chain same_name { type filter hook input priority 0; }
}
"""


def foreign_tables() -> str:
    return run("nft", "list", "table", "ip", "foreign") + run("nft", "list", "table", "inet", TABLE)


async def test_foreign_tables_are_left_alone(router: NftRouter):
    load(FOREIGN)
    before = foreign_tables()
    await router.point({PORT: Target(OLD)})
    await router.point({PORT: Target(NEW)})
    run("nft", "flush", "chain", "ip", TABLE, "output")
    await router.point({PORT: Target(NEW)})
    await router.clear()
    assert foreign_tables() == before
    assert sorted(run("nft", "list", "tables").split("\n")) == [
        "",
        "table inet almagent_test",
        "table ip foreign",
    ]


async def test_a_listing_holds_until_the_kernels_rules_change(router: NftRouter):
    await router.point({PORT: Target(OLD)})
    nft = Nft()
    listing = await nft.list_table(TABLE)
    assert (await nft.list_table(TABLE), len(nft.pids)) == (listing, 1)
    load("add table ip stranger")
    assert (await nft.list_table(TABLE), len(nft.pids)) == (listing, 2)
    await router.clear()
    assert await nft.list_table(TABLE) is None


async def test_changes_of_foreign_tables_are_not_news(router: NftRouter):
    async with hearing(router) as heard:
        load(FOREIGN.replace(TABLE, f"{TABLE}2"))
        assert not await is_heard(heard, 0.2)


async def test_probe_sees_a_foreign_rule_that_takes_the_port(
    net: Lan, router: NftRouter, served: None
):
    await router.point({PORT: Target(OLD)})
    load(FOREIGN)
    assert await router.probe(PORT, OLD)
    run("nft", f"add rule ip foreign early tcp dport {PORT} dnat to {NEW}")
    assert await router.routes() == {PORT: Target(OLD)}
    assert not await router.probe(PORT, OLD)
    assert await router.probe(PORT, NEW)


async def test_probe_sees_that_a_process_of_the_host_answers(net: Lan, router: NftRouter):
    local = Server("local")
    await local.start(net.host.path, "127.0.0.1", [PORT])
    assert not await router.probe(PORT, OLD)
    await local.close()


# --- clear ----------------------------------------------------------------------------------------


async def test_clear_leaves_nothing(net: Lan, router: NftRouter):
    await router.point({PORT: Target(OLD)})
    await router.clear()
    assert run("nft", "list", "ruleset") == ""
    assert LOCALNET.read_text() == "0\n"


async def test_clear_needs_no_bridge(net: Lan, router: NftRouter):
    await router.point({PORT: Target(OLD)})
    net.host.ip(f"link del {net.bridge}")
    await router.clear()
    assert run("nft", "list", "ruleset") == ""
    await NftRouter(table=TABLE, bridge=lambda: "").clear()


def test_traffic_goes_on_when_the_agent_is_killed(net: Lan):
    """The rules are the kernel's: nothing of the process that made them is needed."""
    net.container(OLD)
    program = (
        "import asyncio, os, signal; from almagent.adapters.router import NftRouter\n"
        "from almagent.core.model import Target\n"
        f"router = NftRouter(table='{TABLE}', bridge=lambda: 'br0')\n"
        f"asyncio.run(router.point({{{PORT}: Target('{OLD}')}})); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=False)
    assert ended.returncode == -signal.SIGKILL

    async def ask() -> str:
        server = Server(OLD)
        await server.start(net.containers[OLD].path, OLD, [PORT])
        answer = await who(net.outside.path, "192.0.2.1")
        await server.close()
        return answer

    assert asyncio.run(ask()) == OLD
