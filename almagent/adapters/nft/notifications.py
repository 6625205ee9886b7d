"""Who touches our table: the kernel tells it to everybody who listens."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Collection

from almagent.adapters.nft import netlink
from almagent.ports import Unavailable

_GROUP_NFTABLES = 1 << 6  # NFNLGRP_NFTABLES is 7, as a bit mask
_NEWGEN = (10 << 8) | 15  # NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN: ends the messages of a transaction
_NFTA_NAME = 1  # the table's name, in messages about tables and about everything in them
_NFTA_GEN_PROC_PID = 2
_LARGEST = 65536  # bytes; the kernel cuts its notifications into pages


async def touches(table: str, own: Collection[int]) -> AsyncIterator[None]:
    """Yields after each transaction upon `table` by a process that is not in `own`, for ever.

    Yields as well when the kernel had to drop notifications. Raises Unavailable: not allowed to listen.
    """
    try:
        sock = netlink.netfilter_socket(_GROUP_NFTABLES)
    except OSError as exc:
        raise Unavailable(f"cannot listen to nftables: {exc.strerror}") from exc
    with sock:
        sock.setblocking(False)
        transaction = _Transaction(table.encode() + b"\0", own)
        while True:
            if transaction.concerns_us(await _receive(sock)):
                yield


async def _receive(sock: socket.socket) -> bytes | None:
    """The next datagram; None: some were lost."""
    try:
        return await asyncio.get_running_loop().sock_recv(sock, _LARGEST)
    except OSError as exc:
        if exc.errno != errno.ENOBUFS:
            raise Unavailable(f"cannot listen to nftables: {exc.strerror}") from exc
        return None


class _Transaction:
    """The messages of a transaction come in several datagrams; the last one says whose it was."""

    def __init__(self, name: bytes, own: Collection[int]) -> None:
        self._name = name
        self._own = own
        self._touched = False

    def concerns_us(self, datagram: bytes | None) -> bool:
        if datagram is None:
            self._touched = False
            return True
        if not self._touched and self._name not in datagram:
            return False  # most are about the tables of others
        foreign = False
        for kind, port, body in netlink.messages(datagram):
            foreign |= self._read(kind, port, netlink.body_attributes(body))
        return foreign

    def _read(self, kind: int, port: int, found: dict[int, bytes]) -> bool:
        """Whether this message ends a transaction of somebody else upon our table.

        Its process number is that of the outermost namespace; in one of its own (a container) the port id
        is the number by which we know our child, unless another socket has taken it.
        """
        if kind != _NEWGEN:
            self._touched |= found.get(_NFTA_NAME) == self._name
            return False
        touched, self._touched = self._touched, False
        whose = {int.from_bytes(found.get(_NFTA_GEN_PROC_PID, b"")), port}
        return touched and whose.isdisjoint(self._own)
