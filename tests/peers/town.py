"""Two containers on an agent's network of a real Docker engine, a machine outside, and their clients."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import docker

from tests.peers.netns import HERE, Machine, namespace_of, run

SUBNET, OLD, NEW = "10.79.3.0/24", "10.79.3.2", "10.79.3.3"
HOST, OUTSIDE = "10.79.4.1", "10.79.4.9"  # on the cable to the machine outside


@dataclass
class Town:
    bridge: str
    table: str
    outside: Machine
    ids: dict[str, str] = field(default_factory=dict)  # address of a container -> its id
    pids: dict[str, int] = field(default_factory=dict)  # address of a container -> its process

    def clients(self) -> dict[str, tuple[Path, str]]:
        """Kind -> (network namespace, which address of the host it calls)."""
        return {
            "loopback": (HERE, "127.0.0.1"),
            "own address": (HERE, HOST),
            "outside": (self.outside.path, HOST),
            "container": (namespace_of(self.pids[OLD]), HOST),
        }


@contextmanager
def build(
    api: docker.APIClient,
    image: str,
    ports: Sequence[int],
    labels: dict[str, str],
    publish_on: str = "127.0.0.1",
) -> Iterator[Town]:
    """Both containers run `image`, named as their address; `ports` are published on ephemeral ports."""
    name = secrets.token_hex(3)
    town = Town(f"alm{name}", f"almagent_{name}", Machine(f"test-{name}"))
    pool = docker.types.IPAMPool(subnet=SUBNET)
    network = api.create_network(
        f"almagent-test-{name}",
        ipam=docker.types.IPAMConfig(pool_configs=[pool]),
        options={"com.docker.network.bridge.name": town.bridge},
        labels=labels,
    )["Id"]
    try:
        for address in (OLD, NEW):
            bindings: dict[int | str, object] = dict.fromkeys(ports, (publish_on, None))
            town.ids[address] = _create(api, image, network, address, bindings, labels)
            api.start(town.ids[address])
            town.pids[address] = api.inspect_container(town.ids[address])["State"]["Pid"]
        _build_outside(town.outside, f"alm{name}o")
        yield town
    finally:
        town.outside.delete()
        for container in town.ids.values():
            api.remove_container(container, force=True)
        api.remove_network(network)


def _create(
    api: docker.APIClient,
    image: str,
    network: str,
    address: str,
    bindings: dict[int | str, object],
    labels: dict[str, str],
) -> str:
    container: str = api.create_container(
        image,
        hostname=address,
        ports=list(bindings),
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
