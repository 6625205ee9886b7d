"""Documents of the test apps, and a second host outside from which load comes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.peers.netns import Machine, run
from tests.peers.registry import PASSWORD, USER

HOST, OUTSIDE = "10.79.5.1", "10.79.5.9"  # on the cable between this host and the one outside
# As behind a busy address translator: each port is used again within seconds, by the next release's time.
SOURCE_PORTS = ("net.ipv4.ip_local_port_range=40000 40599", "net.ipv4.tcp_tw_reuse=1")


def document(image: str, port: int, **environment: object) -> dict[str, Any]:
    values = {"PAGE": "one", "PORTS": str(port)} | {k: str(v) for k, v in environment.items()}
    return {
        "image": image,
        "registryUsername": USER,
        "registryPassword": PASSWORD,
        "environment_variables": values,
        "ports": [port],
    }


@dataclass(frozen=True)
class Outside:
    """A machine at the other end of a cable, with few source ports; it calls this host by `HOST`."""

    machine: Machine


@contextmanager
def outside() -> Iterator[Outside]:
    name = secrets.token_hex(3)
    machine = Machine(f"test-{name}")
    machine.create()
    cable = f"out{name}"
    try:
        run("ip", "link", "add", cable, "type", "veth", "peer", "eth0", "netns", machine.name)
        run("ip", "address", "add", f"{HOST}/24", "dev", cable)
        run("ip", "link", "set", cable, "up")
        machine.ip(f"address add {OUTSIDE}/24 dev eth0")
        machine.ip("link set eth0 up")
        machine.ip(f"route add default via {HOST}")
        machine.run("sysctl", "-q", *SOURCE_PORTS)
        yield Outside(machine)
    finally:
        machine.delete()
