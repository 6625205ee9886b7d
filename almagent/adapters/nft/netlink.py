"""The few netlink messages that are needed, packed and unpacked by hand.

Layouts: linux/netlink.h, linux/netfilter/nfnetlink.h, nf_tables.h and nfnetlink_conntrack.h. Headers are
in host byte order, values inside attributes in network byte order; attributes are padded to four bytes.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

NETLINK_NETFILTER = 12
NLMSG_ERROR = 2
NLM_F_REQUEST = 1
NLA_TYPE_MASK = 0x3FFF  # the two highest bits are flags

_MESSAGE = struct.Struct("=IHHII")  # length, type, flags, sequence, port id
_NETFILTER = struct.Struct("=BBH")  # family, version, resource id
_ATTRIBUTE = struct.Struct("=HH")  # length, type


def netfilter_socket(groups: int = 0) -> socket.socket:
    """A netlink socket that hears the multicast groups of the bit mask. Raises OSError."""
    sock = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
    )
    try:
        sock.bind((0, groups))
    except OSError:
        sock.close()
        raise
    return sock


def message(kind: int, payload: bytes) -> bytes:
    """One request for the IPv4 family."""
    body = _NETFILTER.pack(socket.AF_INET, 0, 0) + payload
    return _MESSAGE.pack(_MESSAGE.size + len(body), kind, NLM_F_REQUEST, 0, 0) + body


def messages(datagram: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, port id, body) of each message of a datagram; the body includes the netfilter header."""
    while len(datagram) >= _MESSAGE.size:
        length, kind, _flags, _sequence, port = _MESSAGE.unpack_from(datagram)
        if length < _MESSAGE.size:
            return
        yield kind, port, datagram[_MESSAGE.size : length]
        datagram = datagram[_padded(length) :]


def attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value.ljust(_padded(len(value)), b"\0")


def attributes(data: bytes) -> dict[int, bytes]:
    """type -> value of the attributes side by side in `data`."""
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            break
        found[kind & NLA_TYPE_MASK] = data[_ATTRIBUTE.size : length]
        data = data[_padded(length) :]
    return found


def body_attributes(body: bytes) -> dict[int, bytes]:
    """The attributes behind the netfilter header of a message."""
    return attributes(body[_NETFILTER.size :])


def _padded(length: int) -> int:
    return (length + 3) & ~3
