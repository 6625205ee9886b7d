"""The agent's own bridge network: fixed addresses for its containers, a known interface name.

With a fixed address a container is found under the same address after every restart of it or of the
engine (on Docker's default bridge they were seen to be dealt anew).
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from almagent.adapters.docker_engine.labels import Owner
from almagent.adapters.docker_engine.observe import address
from almagent.ports import Refused

Subnet = ipaddress.IPv4Network

POOLS = (Subnet("172.30.0.0/16"), Subnet("10.213.0.0/16"))
PREFIX = 27  # 29 containers: the active one, the candidate and whatever is not yet cleaned up
MAX_TRIES = 64  # the engine may know of overlaps that are not to be seen from here
ROUTES = Path("/proc/net/route")


def ensure(client: Any, owner: Owner) -> Subnet:
    """The subnet of the owner's network, which is made if it is not there.

    Raises Refused when no subnet is free or a foreign network has the name.
    """
    networks = client.networks()
    for network in networks:
        if network["Name"] == owner.network:
            return _check(network, owner)
    taken = [subnet for network in networks for subnet in _subnets(network)] + host_routes()
    for subnet in itertools.islice(candidates(taken), MAX_TRIES):
        if _make(client, owner, subnet):
            return subnet
    raise Refused(f"cannot make network {owner.network}: no free subnet in 172.30/16 and 10.213/16")


def candidates(taken: Iterable[Subnet]) -> Iterator[Subnet]:
    """Subnets that overlap none of `taken`, always in the same order."""
    avoid = list(taken)
    for pool in POOLS:
        for subnet in pool.subnets(new_prefix=PREFIX):
            if not any(subnet.overlaps(other) for other in avoid):
                yield subnet


def rejoin(client: Any, owner: Owner, container: Mapping[str, Any]) -> bool:
    """Connect a stopped container to the owner's network of now, under the address that it had.

    Docker knows its network by an id, which is another one when the network was made anew. False: the one
    it knows is still there.
    """
    endpoint = container["NetworkSettings"]["Networks"].get(owner.network) or {}
    if any(network["Id"] == endpoint.get("NetworkID") for network in client.networks()):
        return False
    ensure(client, owner)
    client.disconnect_container_from_network(container["Id"], owner.network, force=True)
    client.connect_container_to_network(
        container["Id"], owner.network, ipv4_address=address(endpoint)
    )
    return True


def remove_unused(client: Any, owner: Owner) -> None:
    """Once there is no container of ours; not while somebody else's is on it."""
    if client.containers(all=True, filters=owner.filters):
        return
    with suppress(client.Answer):
        if owner.owns(client.inspect_network(owner.network)["Labels"]):
            client.remove_network(owner.network)


def free_address(client: Any, owner: Owner, subnet: Subnet, containers: Iterable[Any]) -> str:
    """The lowest address that no container has or will have when it runs again.

    `containers`: rows of the engine's list of all containers. Raises Refused.
    """
    network = client.inspect_network(owner.network)
    present = [entry["IPv4Address"] for entry in (network.get("Containers") or {}).values()]
    rows = [row["NetworkSettings"]["Networks"].get(owner.network) for row in containers]
    used = {text.partition("/")[0] for text in [*present, *map(address, rows)]}
    hosts = list(subnet.hosts())[1:]  # the first one is the gateway
    free = next((str(host) for host in hosts if str(host) not in used), None)
    if free is None:
        raise Refused(f"cannot find a free address on network {owner.network}")
    return free


def gateway(subnet: Subnet) -> str:
    """The address of the bridge, which is one of this host's."""
    return str(next(subnet.hosts()))


def host_routes() -> list[Subnet]:
    """What the kernel's main table routes, but for the default route."""
    rows = [line.split() for line in ROUTES.read_text().splitlines()[1:]]
    found = [Subnet((_number(row[1]), _mask(row[7]))) for row in rows if len(row) > 7]
    return [subnet for subnet in found if subnet.prefixlen]


def _number(text: str) -> int:
    """The kernel prints addresses as hexadecimal of the host's (little-endian) order."""
    return int.from_bytes(bytes.fromhex(text), "little")


def _mask(text: str) -> int:
    return _number(text).bit_count()


def _check(network: dict[str, Any], owner: Owner) -> Subnet:
    subnets = _subnets(network)
    if not owner.owns(network["Labels"]) or not subnets:
        raise Refused(f"cannot use network {owner.network}: somebody else made one of that name")
    return subnets[0]


def _subnets(network: dict[str, Any]) -> list[Subnet]:
    configs = (network.get("IPAM") or {}).get("Config") or ()
    texts = [config.get("Subnet", "") for config in configs]
    return [Subnet(text, strict=False) for text in texts if text and ":" not in text]


def _make(client: Any, owner: Owner, subnet: Subnet) -> bool:
    """False when the engine knows of an overlap that we do not see."""
    try:
        client.create_network(
            owner.network,
            driver="bridge",
            check_duplicate=True,
            labels=owner.labels,
            options={"com.docker.network.bridge.name": owner.bridge},
            ipam={
                "Driver": "default",
                "Config": [{"Subnet": str(subnet), "Gateway": gateway(subnet)}],
            },
        )
    except client.Answer as exc:
        if "overlap" in str(exc.explanation):
            return False
        raise
    return True
