"""Two containers on an agent's network of a real Docker engine, two on other networks of it, a machine outside."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import docker

from almagent.core.model import Target
from tests.peers.netns import HERE, Machine, namespace_of, run

SUBNET, GATEWAY, OLD, NEW = "10.79.3.0/24", "10.79.3.1", "10.79.3.2", "10.79.3.3"
ELSEWHERE, ELSEWHERE_GATEWAY = "10.79.6.0/24", "10.79.6.1"
DEFAULT, OTHER = "default network", "other network"  # docker0, and one with ELSEWHERE
HOST, OUTSIDE = "10.79.4.1", "10.79.4.9"  # on the cable to the machine outside


@dataclass
class Town:
    """Containers are named as their address, those of other networks as their network."""

    api: docker.APIClient
    bridge: str
    table: str
    outside: Machine
    ids: dict[str, str] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Anew, if it runs."""
        self.api.restart(self.ids[name], timeout=0)
        self.pids[name] = self.api.inspect_container(self.ids[name])["State"]["Pid"]

    def remove(self) -> None:
        self.outside.delete()
        for container in self.ids.values():
            self.api.remove_container(container, force=True)

    def targets(self, address: str) -> dict[int, Target]:
        """By port, with the doors of the present start."""
        ports = self.api.inspect_container(self.ids[address])["NetworkSettings"]["Ports"]
        doors = {name: f"{rows[0]['HostIp']}:{rows[0]['HostPort']}" for name, rows in ports.items()}
        return {int(name.removesuffix("/tcp")): Target(address, doors[name]) for name in doors}

    def clients(self) -> dict[str, tuple[Path, str]]:
        """Kind -> (network namespace, which address of the host it calls)."""
        return {
            "loopback": (HERE, "127.0.0.1"),
            "own address": (HERE, HOST),
            "outside": (self.outside.path, HOST),
            "container": (namespace_of(self.pids[OLD]), HOST),
        }

    def neighbours(self) -> dict[str, tuple[Path, str]]:
        """The same, of containers on other networks."""
        return {name: (namespace_of(self.pids[name]), HOST) for name in (DEFAULT, OTHER)}


@contextmanager
def build(
    api: docker.APIClient,
    image: str,
    ports: Sequence[int],
    labels: dict[str, str],
    publish_on: str = GATEWAY,
) -> Iterator[Town]:
    """All containers run `image`; `ports` of OLD and NEW are published on ephemeral ports of that address."""
    name = secrets.token_hex(3)
    town = Town(api, f"alm{name}", f"almagent_{name}", Machine(f"test-{name}"))
    bindings: dict[int | str, object] = dict.fromkeys(ports, (publish_on, None))
    with ExitStack() as stack:
        home = stack.enter_context(
            _network(api, f"almagent-test-{name}", SUBNET, labels, town.bridge)
        )
        other = stack.enter_context(_network(api, f"other-test-{name}", ELSEWHERE, labels))
        stack.callback(town.remove)
        for address in (OLD, NEW):
            town.ids[address] = _create(api, image, address, home, labels, bindings, address)
        town.ids[DEFAULT] = _create(api, image, "default", "bridge", labels)
        town.ids[OTHER] = _create(api, image, "other", other, labels)
        for one in town.ids:
            town.start(one)
        _build_outside(town.outside, f"out{name}")
        yield town


@contextmanager
def _network(
    api: docker.APIClient, name: str, subnet: str, labels: dict[str, str], bridge: str = ""
) -> Iterator[str]:
    pool = docker.types.IPAMPool(subnet=subnet)
    network = api.create_network(
        name,
        ipam=docker.types.IPAMConfig(pool_configs=[pool]),
        options={"com.docker.network.bridge.name": bridge} if bridge else None,
        labels=labels,
    )["Id"]
    try:
        yield network
    finally:
        api.remove_network(network)


def _create(
    api: docker.APIClient,
    image: str,
    hostname: str,
    network: str,
    labels: dict[str, str],
    bindings: dict[int | str, object] | None = None,
    address: str | None = None,
) -> str:
    container: str = api.create_container(
        image,
        hostname=hostname,
        ports=list(bindings or ()),
        host_config=api.create_host_config(port_bindings=bindings, network_mode=network),
        networking_config=api.create_networking_config(
            {network: api.create_endpoint_config(ipv4_address=address)}  # type: ignore[arg-type]  # the stubs are wrong
        ),
        labels=labels,
    )["Id"]
    return container


def _build_outside(outside: Machine, cable: str) -> None:
    outside.create()
    run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", outside.name)
    run("ip", "address", "add", f"{HOST}/24", "dev", cable)
    run("ip", "link", "set", cable, "up")
    outside.ip(f"address add {OUTSIDE}/24 dev eth0")
    outside.ip("link set eth0 up")
    outside.ip(f"route add default via {HOST}")
