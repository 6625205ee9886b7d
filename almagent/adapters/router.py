"""Who answers on the host's ports: NAT rules of our own in the kernel, no process in the path.

What the rules do: a packet for any IPv4 address of this host, 127.0.0.1 among them, and for a routed
port goes to the container instead (`prerouting` for those that arrive, `output` for the host's own).
Connection tracking remembers the choice, so open connections stay where they are when the rules change,
and forgets what is over or was never answered sooner than elsewhere (`nft/timeouts.py` says why).
`postrouting` gives the packets a source that the container can answer to where theirs would not do
(127.0.0.0/8, or another container on the same bridge). `route_localnet` lets 127.0.0.0/8 out to the bridge;
`guard` keeps it from letting the containers in to services of the host that listen on 127.0.0.1.

Docker's own rules are left alone. To let packets pass them, the container's ports are published: each on
an ephemeral port of the network's gateway, an address of this host. That port is the door. Docker drops what
goes from one of its networks to another, so packets from the others are led to the door and not to the
container: they stay on this host, where Docker's proxy takes them and connects to the container itself. Docker
deals the doors anew at every start of a container; the routes are then to be pointed anew.

The other networks are known by the names of their bridges: docker0, br-* and alm*. A network with a bridge
of another name is served only where Docker does not isolate it: such a bridge may as well be the way to
the outside, whose clients are to be seen by their own address and not by the proxy's. Filters of the host
that look at what arrives from the other networks see the door's port.

Not served: UDP and IPv6. `[::1]` is refused, so clients of the name localhost fall back to 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import AsyncIterator, Callable, Mapping

from almagent.adapters.nft import conntrack, links, notifications, ruleset, timeouts
from almagent.adapters.nft.command import Nft
from almagent.adapters.sockets import stream
from almagent.core.model import Target
from almagent.journal import logger
from almagent.ports import Refused, Unavailable

log = logger()

_TABLE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_INTERFACE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_TRIAL = {80: Target("192.0.2.1", "192.0.2.2:32768"), 443: Target("192.0.2.1")}
CANNOT_CHANGE = "cannot use nftables: net.ipv4.conf cannot be changed"
_PROBE_TIMEOUT = 3.0  # seconds; covers one lost SYN, which is sent again after 1 s


class NftRouter:
    """The Router port over nftables.

    `table` is ours alone (family ip). `bridge` tells the interface name of the agent's Docker network,
    "" while it is not known.
    """

    def __init__(self, *, table: str, bridge: Callable[[], str]) -> None:
        if not _TABLE_NAME.fullmatch(table):
            raise ValueError(f"cannot use {table!r} as the name of an nftables table")
        self._table = table
        self._bridge = bridge
        self._nft = Nft()
        self._one_writer = asyncio.Lock()

    async def routes(self) -> dict[int, Target]:
        """By port, {} unless every rule and setting is there and unaltered."""
        bridge = self._bridge()
        if not bridge or not links.routes_loopback(bridge):
            return {}
        return await self._listed(bridge) or {}

    async def has_rules(self) -> bool:
        """Whether the table is there, in whatever state; False as well where nft cannot be run."""
        try:
            return await self._nft.list_table(self._table) is not None
        except Unavailable:
            return False

    async def point(self, targets: Mapping[int, Target]) -> None:
        """Raises Refused (not a port or not an IPv4 address, rejected by nft), Unavailable."""
        routes = {_port(port): _target(*target) for port, target in targets.items()}
        bridge = self._known_bridge()
        async with self._one_writer:
            intact = await self._listed(bridge) is not None
            await self._load(
                ruleset.replace_routes(self._table, routes)
                if intact
                else self._whole_table(bridge, routes)
            )
            links.route_loopback(bridge)  # after the guard is in force
            links.allow_hairpin(bridge)
        addresses = sorted({target.address for target in routes.values()})
        log.info("router.pointed", ports=sorted(routes), addresses=addresses, rebuilt=not intact)

    async def clear(self) -> None:
        """Remove the table and undo what was allowed on the bridge. Raises Unavailable, Refused."""
        async with self._one_writer:
            if bridge := self._bridge():
                links.restore_loopback(bridge)
            await self._load(ruleset.remove_table(self._table))
        log.info("router.cleared", table=self._table)

    def changes(self) -> AsyncIterator[None]:
        """Yields when somebody else has changed our table, for ever. Raises Unavailable.

        Does not see the bridge's settings nor other tables; `routes` and `probe` do.
        """
        return notifications.touches(self._table, self._nft.pids)

    async def probe(self, port: int, address: str) -> bool:
        """Whether a new connection to 127.0.0.1:`port` arrives at `address`; costs one connection.

        Finds out when a foreign rule took the port before ours, or nothing accepts. Takes the way of the
        host's own traffic: it cannot see foreign rules that catch only packets from outside, or only
        other addresses of this host. Raises Unavailable: connection tracking cannot be asked.
        """
        with stream() as sock:
            try:
                async with asyncio.timeout(_PROBE_TIMEOUT):
                    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
                source, dialled = sock.getsockname(), sock.getpeername()
            except OSError:
                return False
            return conntrack.destination(source, dialled) == address

    async def _listed(self, bridge: str) -> dict[int, Target] | None:
        listing = await self._nft.list_table(self._table)
        if listing is None:
            return None
        return ruleset.read(listing, self._table, bridge, timeouts.policy())

    def _whole_table(self, bridge: str, routes: Mapping[int, Target]) -> str:
        text = ruleset.render(self._table, bridge, routes, timeouts.policy())
        return ruleset.replace_table(self._table, text)

    async def _load(self, script: str) -> None:
        answer = await self._nft.load(script)
        if not answer.ok:
            raise Refused(f"cannot change nftables table {self._table}: {answer.text}")

    def _known_bridge(self) -> str:
        bridge = self._bridge()
        if not _INTERFACE_NAME.fullmatch(bridge):
            raise Unavailable(f"cannot route: {bridge!r} is not the name of a bridge")
        if not links.exists(bridge):
            raise Unavailable(f"cannot route: there is no bridge {bridge}")
        return bridge


async def unsupported_it_seems(table: str = "almagent") -> str | None:
    """As `supported`, for those who may change nothing: the kernel only says whether it would do it."""
    if not links.may_change():
        return CANNOT_CHANGE
    try:
        answer = await Nft().check(_trial(f"{table}_trial"))
    except Unavailable as exc:
        return f"cannot use nftables: {exc}"
    return None if answer.ok else f"cannot use nftables: {answer.text}"


async def supported(table: str = "almagent") -> str | None:
    """Why nftables cannot be used on this host, in one line; None: it can.

    A dry run: loads the whole table under a name made from that of `table`, dormant so that no packet sees
    it, reads it back and removes it. What a run that was killed has left of it goes with that.
    """
    if not links.may_change():
        return CANNOT_CHANGE
    name = f"{table}_trial"
    try:
        return await _try(Nft(), name, _trial(name))
    except Unavailable as exc:
        return f"cannot use nftables: {exc}"


def _trial(table: str) -> str:
    return ruleset.render(table, "almagent0", _TRIAL, timeouts.policy(), dormant=True)


async def _try(nft: Nft, table: str, trial: str) -> str | None:
    loaded = await nft.load(ruleset.replace_table(table, trial))
    if not loaded.ok:
        return f"cannot use nftables: {loaded.text}"
    try:
        listing = await nft.list_table(table)
    finally:
        await nft.load(ruleset.remove_table(table))
    if listing is None or not ruleset.same(listing, trial):
        return "cannot use nftables: nft lists rules in a form that is not known"
    return None


def _target(address: str, door: str) -> Target:
    """Checked, and written as nft prints it."""
    if not door:
        return Target(_address(address))
    host, _, port = door.rpartition(":")
    number = int(port) if port.isdecimal() else 0
    return Target(_address(address), f"{_address(host)}:{_port(number)}")


def _address(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ipaddress.AddressValueError as exc:
        raise Refused(f"cannot route to {text!r}: {exc}") from exc


def _port(number: int) -> int:
    if not 0 < number < 65536:
        raise Refused(f"cannot route port {number}: not between 1 and 65535")
    return number
