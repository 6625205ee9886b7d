"""What the route costs: throughput and p99 latency through the router against the container's own address
and against `docker run -p`, from each kind of client.

Run as root: `python -m tests.benchmarks.bench_router [--rounds N] [--load kept|new]`. Needs a Docker engine and
wrk. The ways are interleaved in every round, each ratio is taken inside its round, and the median is printed:
on a shared machine only ratios mean anything. Throughput is wrk's, at full load. Latency is that of one request
at a time, the ways in turn: at full load it would be the length of the queue, which throughput tells already.
So is the throughput of new connections: at full load they use up the ports within seconds, whatever the way.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from almagent.adapters.router import NftRouter
from almagent.adapters.sockets import accepts
from almagent.core.model import Target
from tests.peers.docker_engine import connect
from tests.peers.images import LABEL, Images
from tests.peers.leaks import clear
from tests.peers.netns import inside, listening, namespace_of
from tests.peers.town import NEW, Town, build

PORT = 18080
CONNECTIONS = 16
SECONDS = 1  # of each measurement of throughput
SAMPLES = {"kept": 3000, "new": 500}  # requests each way of each measurement of latency
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

Address = tuple[str, int]


@dataclass(frozen=True)
class Figure:
    rate: float  # requests a second
    p99: float  # seconds


def serve(server: socket.socket) -> None:
    """As little HTTP as can be, so that the way to it and not the server is measured."""
    poller = select.epoll()
    poller.register(server, select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    while True:
        for descriptor, _ in poller.poll():
            if descriptor == server.fileno():
                client, _ = server.accept()
                clients[client.fileno()] = client
                poller.register(client, select.EPOLLIN)
            else:
                answer(clients, descriptor)


def answer(clients: dict[int, socket.socket], descriptor: int) -> None:
    try:
        request = clients[descriptor].recv(4096)
        if request:
            clients[descriptor].send(ANSWER)
    except OSError:
        request = b""
    if not request or b"close" in request:
        clients.pop(descriptor).close()


@contextmanager
def server_in(namespace: Path) -> Iterator[None]:
    """A process of its own, whose socket is the container's."""
    with listening(namespace, "0.0.0.0", PORT) as server:
        pid = os.fork()
        if pid == 0:
            serve(server)
    try:
        yield
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def measure(namespace: Path, ways: Sequence[Address], load: str) -> list[Figure]:
    """One round: a figure for each of the ways."""
    with inside(namespace):
        taken = latencies(ways, load)
        rates = [
            len(t) / sum(t) if load == "new" else throughput(*way)
            for t, way in zip(taken, ways, strict=True)
        ]
    p99s = [statistics.quantiles(t, n=100)[98] for t in taken]
    return [Figure(rate, p99) for rate, p99 in zip(rates, p99s, strict=True)]


def throughput(host: str, port: int) -> float:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", f"http://{host}:{port}/"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if rate is None:
        raise RuntimeError(f"cannot read what wrk says: {text}")
    return float(rate[1])


def latencies(ways: Sequence[Address], load: str) -> list[list[float]]:
    """Seconds that requests took, the ways in turn: what else the machine does falls on all alike."""
    taken: list[list[float]] = [[] for _ in ways]
    clients = [socket.create_connection(way) for way in ways]
    for _ in range(SAMPLES[load]):
        for i, way in enumerate(ways):
            if load == "new":
                clients[i].close()
            begin = time.perf_counter()
            if load == "new":
                clients[i] = socket.create_connection(way)
            clients[i].sendall(b"GET / HTTP/1.1\r\nHost: host\r\n\r\n")
            clients[i].recv(4096)
            taken[i].append(time.perf_counter() - begin)
    for client in clients:
        client.close()
    return taken


def compare(town: Town, published: int, rounds: int, load: str) -> None:
    print(f"{load} connections, median of {rounds} rounds")
    print(f"{'client':12} {'':8} {'direct':>10} {'routed/direct':>14} {'routed/-p':>10}")
    for kind, (namespace, host) in town.clients().items():
        ways = ((NEW, PORT), (host, PORT), (host, published))
        results = [measure(namespace, ways, load) for _ in range(rounds)]
        show(kind, "req/s", "{:.0f}", [[figure.rate for figure in row] for row in results])
        show("", "p99 ms", "{:.3f}", [[figure.p99 * 1000 for figure in row] for row in results])


def show(kind: str, what: str, form: str, rows: list[list[float]]) -> None:
    direct = form.format(statistics.median(row[0] for row in rows))
    to_direct = statistics.median(row[1] / row[0] for row in rows)
    to_published = statistics.median(row[1] / row[2] for row in rows)
    print(f"{kind:12} {what:8} {direct:>10} {to_direct:>14.2f} {to_published:>10.2f}")


async def route(router: NftRouter) -> None:
    if not await accepts(NEW, [PORT], 5):
        raise RuntimeError("cannot reach the server")
    await router.point({PORT: Target(NEW)})


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--load", choices=["kept", "new"], default="kept")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        print("cannot measure: wrk is not installed", file=sys.stderr)
        return 1
    # It cleans up then, too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    session = f"bench-{os.getpid()}"
    api = connect()
    try:
        image = Images(api, session).make('CMD ["sleep", "3600"]')
        labels = {LABEL: session}
        with build(api, image, [PORT], labels, "0.0.0.0") as town:
            published = int(api.port(town.ids[NEW], PORT)[0]["HostPort"])
            router = NftRouter(table=town.table, bridge=lambda: town.bridge)
            with server_in(namespace_of(town.pids[NEW])):
                asyncio.run(route(router))
                try:
                    compare(town, published, options.rounds, options.load)
                finally:
                    asyncio.run(router.clear())
    finally:
        api.close()
        clear(session)
    return 0


if __name__ == "__main__":
    sys.exit(main())
