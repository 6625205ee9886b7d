"""Where the kernel really sends a connection: asked of its connection tracking."""

from __future__ import annotations

import errno
import socket
import struct

from almagent.adapters.nft import netlink
from almagent.ports import Unavailable

Endpoint = tuple[str, int]

_CT_GET = (1 << 8) | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
_TUPLE_ORIGINAL, _TUPLE_REPLY = 1, 2
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_IP_SOURCE, _IP_DESTINATION = 1, 2
_PROTO_NUMBER, _PROTO_SOURCE, _PROTO_DESTINATION = 1, 2, 3
_PATIENCE = 1.0  # seconds; the kernel answers inside the send call


def destination(source: Endpoint, dialled: Endpoint) -> str:
    """The address that answers the open TCP connection from `source` to `dialled`, "" if not tracked.

    Raises Unavailable: the kernel cannot be asked.
    """
    request = netlink.message(_CT_GET, _nested(_TUPLE_ORIGINAL, _tuple(source, dialled)))
    try:
        with netlink.netfilter_socket() as sock:
            sock.settimeout(_PATIENCE)
            sock.send(request)
            kind, _, body = next(netlink.messages(sock.recv(65536)))
    except OSError as exc:
        raise Unavailable(f"cannot ask connection tracking: {exc.strerror or exc}") from exc
    if kind == netlink.NLMSG_ERROR:
        return _absent(-struct.unpack_from("=i", body)[0])
    reply = netlink.attributes(netlink.body_attributes(body)[_TUPLE_REPLY])
    return socket.inet_ntoa(netlink.attributes(reply[_TUPLE_IP])[_IP_SOURCE])


def _absent(code: int) -> str:
    if code == errno.ENOENT:
        return ""
    raise Unavailable(f"cannot ask connection tracking: {errno.errorcode.get(code, code)}")


def _tuple(source: Endpoint, dialled: Endpoint) -> bytes:
    addresses = _attributes(
        {_IP_SOURCE: socket.inet_aton(source[0]), _IP_DESTINATION: socket.inet_aton(dialled[0])}
    )
    protocol = _attributes(
        {
            _PROTO_NUMBER: bytes([socket.IPPROTO_TCP]),
            _PROTO_SOURCE: source[1].to_bytes(2),
            _PROTO_DESTINATION: dialled[1].to_bytes(2),
        }
    )
    return _nested(_TUPLE_IP, addresses) + _nested(_TUPLE_PROTO, protocol)


def _attributes(values: dict[int, bytes]) -> bytes:
    return b"".join(netlink.attribute(kind, value) for kind, value in values.items())


def _nested(kind: int, inner: bytes) -> bytes:
    return netlink.attribute(kind | 0x8000, inner)  # NLA_F_NESTED
