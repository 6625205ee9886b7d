"""The Router port in memory: passes the same contract suite as the one over nftables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from almagent.ports import Refused


class Kernel:
    """What outlives a router: the rules, and who wants to hear of changes."""

    def __init__(self) -> None:
        self.routes: dict[int, str] = {}
        self._listeners: set[asyncio.Event] = set()

    def connect(self, port: int) -> str:
        """The address that answers. Raises ConnectionRefusedError."""
        if port not in self.routes:
            raise ConnectionRefusedError(f"port {port} is closed")
        return self.routes[port]

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

    async def routes(self) -> dict[int, str]:
        return dict(self.kernel.routes)

    async def point(self, ports: Sequence[int], address: str) -> None:
        if not all(0 < port < 65536 for port in ports):
            raise Refused(f"cannot route {ports}: not ports")
        if ports and address.count(".") != 3:
            raise Refused(f"cannot route to {address!r}: not an IPv4 address")
        self.kernel.routes = dict.fromkeys(ports, address)

    async def clear(self) -> None:
        self.kernel.routes = {}

    def changes(self) -> AsyncIterator[None]:
        return self.kernel.changes()

    async def probe(self, port: int, address: str) -> bool:
        return self.kernel.routes.get(port) == address
