"""What the kernel tells about TCP sockets, and plain connects.

A table in /proc takes 10 to 20 ms to read, however short: the kernel walks its hash of all sockets. So it is
read on a thread.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from almagent.adapters.threads import Door
from almagent.ports import Unavailable

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_DEADLINE = 10.0  # seconds; /proc always answers, only a starved machine takes long

# include/net/tcp_states.h, as /proc prints them
_LISTEN = "0A"
_OPEN = frozenset(
    {
        "01",  # ESTABLISHED
        "03",  # SYN_RECV
        "08",  # CLOSE_WAIT
        "04",  # FIN_WAIT1: closed by the program; the end of the answer is still to be delivered ...
        "09",  # LAST_ACK ... likewise, where the client had closed its side first
        "0B",  # CLOSING ... or at the same time
    }
)


async def connections(pid: int, ports: Collection[int]) -> int:
    """Open TCP connections to `ports` in the network namespace of a process, 0 if it is gone.

    An idle kept-alive connection counts like one whose request is being worked on. Raises Unavailable.
    """
    return await _ask(_count, pid, ports)


async def listeners(ports: Collection[int]) -> dict[int, str]:
    """Which of `ports` a process in this network namespace listens on, and its name ("" if unknown).

    Raises Unavailable.
    """
    return await _ask(_listening, ports)


async def accepts(address: str, ports: Iterable[int], timeout: float) -> bool:
    """Whether every port accepts a connection within `timeout` seconds in all. Raises Unavailable."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            for port in ports:
                with stream() as sock:
                    await loop.sock_connect(sock, (address, port))
    except OSError:  # TimeoutError is one
        return False
    return True


def stream() -> socket.socket:
    """For a connect. Raises Unavailable: the host gives none, which says nothing of whoever is to be asked."""
    try:
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as exc:
        raise Unavailable(f"cannot make a TCP socket: {exc.strerror}") from exc


async def _ask(fn: Callable[[*Ts], T], *args: *Ts) -> T:
    try:
        return await Door("sockets").call(fn, *args, timeout=_DEADLINE)
    except TimeoutError as exc:
        raise Unavailable(f"cannot read the host's TCP sockets within {_DEADLINE:g} s") from exc
    except OSError as exc:
        raise Unavailable(f"cannot read the host's TCP sockets: {exc.strerror}") from exc


def _count(pid: int, ports: Collection[int]) -> int:
    return sum(port in ports and state in _OPEN for port, state, _inode in _table(pid))


def _listening(ports: Collection[int]) -> dict[int, str]:
    found = {
        inode: port
        for port, state, inode in _table(os.getpid())
        if state == _LISTEN and port in ports
    }
    names = _owners(found) if found else {}  # reads the open files of all processes
    return {port: names.get(inode, "") for inode, port in found.items()}


def _table(pid: int) -> Iterator[tuple[int, str, str]]:
    """(local port, state, inode) of each TCP socket that the process's network namespace has."""
    for name in ("tcp", "tcp6"):
        with (
            suppress(FileNotFoundError, ProcessLookupError),
            Path(f"/proc/{pid}/net/{name}").open() as file,
        ):
            next(file, None)  # the heading
            for line in file:
                fields = line.split(None, 10)
                yield int(fields[1].rpartition(":")[2], 16), fields[3], fields[9]


def _owners(inodes: Collection[str]) -> dict[str, str]:
    """Socket inode -> name of the process that holds it open, as far as can be seen."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    owners = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile, or not ours to look at
            for file in (process / "fd").iterdir():
                inode = wanted.get(str(file.readlink()))
                if inode:
                    owners[inode] = (process / "comm").read_text().strip()
    return owners
