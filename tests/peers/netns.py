"""Real packets between network namespaces: a host with a bridge, containers on it, a machine outside.

A socket belongs to the namespace in which it was made. So servers and clients of all machines live in the
test's own event loop; only the moment of making a socket is spent inside.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def inside(namespace: Path) -> Iterator[None]:
    """The calling thread, and what it starts, is in that network namespace meanwhile."""
    with Path("/proc/thread-self/ns/net").open() as home, namespace.open() as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot enter the network namespace")


def run(*command: str, check: bool = True) -> str:
    answer = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
    if check and answer.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {answer.stderr.strip()}")
    return answer.stdout


@dataclass(frozen=True)
class Machine:
    """A network namespace with a name."""

    name: str

    @property
    def path(self) -> Path:
        return Path("/run/netns") / self.name

    def ip(self, arguments: str) -> None:
        run("ip", "-n", self.name, *arguments.split())

    def run(self, *command: str) -> str:
        return run("ip", "netns", "exec", self.name, *command)

    def create(self) -> None:
        run("ip", "netns", "add", self.name)
        self.ip("link set lo up")

    def delete(self) -> None:
        run("ip", "netns", "delete", self.name, check=False)


@dataclass
class Lan:
    """A host (192.0.2.1 and 10.77.0.1 on its bridge), containers behind the bridge, 192.0.2.9 outside."""

    host: Machine
    outside: Machine
    bridge: str = "br0"
    containers: dict[str, Machine] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.outside.create()
        self.host.create()
        self.host.run("sysctl", "-q", "net.ipv4.ip_forward=1")
        self._cable(self.outside, "192.0.2.9/24", "out0")
        self.host.ip("address add 192.0.2.1/24 dev out0")
        self._bridge(self.bridge, "10.77.0.1/24")

    def container(self, address: str, bridge: str = "") -> Machine:
        """`bridge`: another one than that of the containers; the host has .1 on it."""
        machine = Machine(f"{self.host.name}-{address.replace('.', '-')}")
        self.containers[address] = machine
        machine.create()
        cable = f"port{len(self.containers)}"
        self._cable(machine, f"{address}/24", cable)
        self.host.ip(f"link set {cable} master {bridge or self.bridge}")
        machine.ip(f"route add default via {address.rpartition('.')[0]}.1")
        return machine

    def neighbour(self, bridge: str) -> Machine:
        """A container (10.78.0.2) of another network."""
        self._bridge(bridge, "10.78.0.1/24")
        return self.container("10.78.0.2", bridge)

    def delete(self) -> None:
        for machine in (*self.containers.values(), self.outside, self.host):
            machine.delete()

    def _bridge(self, name: str, address: str) -> None:
        self.host.ip(f"link add {name} type bridge")
        self.host.ip(f"address add {address} dev {name}")
        self.host.ip(f"link set {name} up")

    def _cable(self, machine: Machine, address: str, host_end: str) -> None:
        self.host.ip(f"link add {host_end} type veth peer name eth0 netns {machine.name}")
        self.host.ip(f"link set {host_end} up")
        machine.ip(f"address add {address} dev eth0")
        machine.ip("link set eth0 up")


@contextmanager
def lan() -> Iterator[Lan]:
    name = f"test-{secrets.token_hex(3)}"
    built = None
    host, outside = Machine(f"{name}-host"), Machine(f"{name}-out")
    try:
        built = Lan(host, outside)
        yield built
    finally:
        if built is None:
            host.delete()
            outside.delete()
        else:
            built.delete()


# --- sockets inside -------------------------------------------------------------------------------


def listening(namespace: Path, address: str, port: int) -> socket.socket:
    with inside(namespace):
        return socket.create_server((address, port))


def unconnected(namespace: Path) -> socket.socket:
    with inside(namespace):
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


async def dial(namespace: Path, address: str, port: int, patience: float = 3.0) -> Dialogue:
    """Raises OSError: refused, or not connected within `patience` seconds."""
    sock = unconnected(namespace)
    try:
        async with asyncio.timeout(patience):
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
            return Dialogue(*await asyncio.open_connection(sock=sock))
    except BaseException:
        sock.close()
        raise


@dataclass
class Dialogue:
    """A connection to somebody who answers each line with one line."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, line: str = "who?", patience: float = 3.0) -> str:
        async with asyncio.timeout(patience):
            self.writer.write(f"{line}\n".encode())
            return (await self.reader.readline()).decode().strip()

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


class Server:
    """Answers each line of every connection with its own name, for as long as the client likes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._servers: list[asyncio.Server] = []
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self, namespace: Path, address: str, ports: Sequence[int]) -> None:
        for port in ports:
            sock = listening(namespace, address, port)
            self._servers.append(await asyncio.start_server(self._serve, sock=sock))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while await reader.readline():
                writer.write(f"{self._name}\n".encode())
        except OSError:
            pass  # the client has gone
        finally:
            self._open.discard(writer)
            writer.close()

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for writer in tuple(self._open):
            writer.close()
        while self._open:
            await asyncio.sleep(0)


def namespace_of(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/net")


HERE = namespace_of(os.getpid())
