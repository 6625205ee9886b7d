"""The Router port in memory: passes the same contract suite as the one over nftables."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping

from almagent.core.model import Target
from almagent.ports import Refused

ADDRESS = r"\d+(\.\d+){3}"
DOOR = rf"({ADDRESS}:[1-9]\d*)?"


class Kernel:
    """What outlives a router: the rules, and who wants to hear of changes."""

    def __init__(self) -> None:
        self.routes: dict[int, Target] = {}
        self._listeners: set[asyncio.Event] = set()

    def connect(self, port: int, *, neighbour: bool = False) -> str:
        """The address or door that answers. Raises ConnectionRefusedError.

        `neighbour`: the client is a container of another network.
        """
        if port not in self.routes:
            raise ConnectionRefusedError(f"port {port} is closed")
        address, door = self.routes[port]
        return door if neighbour and door else address

    def flush(self) -> None:
        """Somebody else removes the rules."""
        self.routes = {}
        for event in self._listeners:
            event.set()

    async def changes(self) -> AsyncIterator[None]:
        event = asyncio.Event()
        self._listeners.add(event)
        try:
            while await event.wait():
                event.clear()
                yield
        finally:
            self._listeners.discard(event)


class MemoryRouter:
    def __init__(self, kernel: Kernel | None = None) -> None:
        self.kernel = kernel or Kernel()

    async def routes(self) -> dict[int, Target]:
        return dict(self.kernel.routes)

    async def point(self, targets: Mapping[int, Target]) -> None:
        for port, (address, door) in targets.items():
            if not 0 < port < 65536:
                raise Refused(f"cannot route port {port}: not a port")
            if not (re.fullmatch(ADDRESS, address) and re.fullmatch(DOOR, door)):
                raise Refused(f"cannot route to {address!r}, {door!r}: not an IPv4 address")
        self.kernel.routes = dict(targets)

    async def clear(self) -> None:
        self.kernel.routes = {}

    def changes(self) -> AsyncIterator[None]:
        return self.kernel.changes()

    async def probe(self, port: int, address: str) -> bool:
        target = self.kernel.routes.get(port)
        return target is not None and target.address == address
