"""Pull of one new layer by the adapter against the same by `docker pull`, interleaved in one run.

    python -m tests.benchmarks.bench_pull [rounds]

Prints both medians and their ratio; the ratio may be at most 1.15.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.peers.docker_engine import connect
from tests.peers.engine_world import Docker, docker_around

LAYER = 64 * 1024  # bytes
LIMIT = 1.15


async def by_adapter(around: Docker) -> float:
    engine = around.engines[0]
    around.registry.publish("bench:1", payload=LAYER)
    began = time.perf_counter()
    await engine.pull(around.registry.reference("bench:1"), None)
    return time.perf_counter() - began


async def by_hand(around: Docker) -> float:
    around.registry.publish("bench:1", payload=LAYER)
    command = ["docker", "pull", "--quiet", around.registry.reference("bench:1")]
    began = time.perf_counter()
    await asyncio.to_thread(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


async def measure(rounds: int) -> tuple[float, float]:
    """Median seconds: the adapter's, by hand."""
    ours, theirs = [], []
    api = connect()
    with tempfile.TemporaryDirectory() as folder:
        async with docker_around(api, "bench", Path(folder)) as around:
            around.make()
            await by_adapter(around)  # the first one loads the client library
            for _ in range(rounds):
                ours.append(await by_adapter(around))
                theirs.append(await by_hand(around))
    api.close()
    return statistics.median(ours), statistics.median(theirs)


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    ours, theirs = asyncio.run(measure(rounds))
    ratio = ours / theirs
    print(f"adapter {ours * 1000:.0f} ms, docker pull {theirs * 1000:.0f} ms, ratio {ratio:.2f}")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
