"""Whether any rule has changed: the kernel counts the transactions upon all tables of a network namespace."""

from __future__ import annotations

import socket

from almagent.adapters.nft import netlink

_GETGEN = (10 << 8) | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
_NFTA_GEN_ID = 1
_PATIENCE = 1.0  # seconds; the kernel answers inside the send call


def generation() -> bytes | None:
    """As long as this is the same, so are all rules. None: the kernel does not tell."""
    try:
        with netlink.netfilter_socket() as sock:
            sock.settimeout(_PATIENCE)
            sock.send(netlink.message(_GETGEN, b""))
            return _read(sock)
    except OSError:
        return None


def _read(sock: socket.socket) -> bytes | None:
    kind, _, body = next(netlink.messages(sock.recv(65536)))
    return None if kind == netlink.NLMSG_ERROR else netlink.body_attributes(body).get(_NFTA_GEN_ID)
