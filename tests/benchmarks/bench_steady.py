"""What a quiet agent costs: polls that bring nothing new, over the real adapter and a real socket.

    python -m tests.benchmarks.bench_steady [POLLS]

Prints one JSON object; exits 1 when a limit is exceeded. The control plane runs in another process, so
that only the agent's side is measured. Figures an hour are for the default interval.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from pathlib import Path

from almagent.adapters.api import AlmApi
from almagent.core.model import Secret
from almagent.pacing import Phase, pause
from tests.peers.api import ScriptedApi

INTERVAL = 30.0  # seconds, the default
POLLS_AN_HOUR = 3600 / INTERVAL
WARM_UP = 100  # polls
CPU_LIMIT = 0.5  # seconds an hour: what the original's cron job takes
GROWTH_LIMIT = 2048  # KiB over all polls


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def resident() -> int:
    """KiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def serve() -> None:
    """Prints the URL; once stdin ends, how many requests there were."""
    async with ScriptedApi() as api:
        api.etag = '"v1"'
        print(api.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(len(api.requests), flush=True)


async def poll(alm: AlmApi, times: int) -> None:
    phase, never = Phase("agent", 0.001, lambda: 0.0), asyncio.Event()
    for _ in range(times):
        await alm.fetch_document()
        phase.succeeded()
        await pause(never, phase.next_wait(time.monotonic()))


async def measure(url: str, polls: int) -> dict[str, float]:
    alm = AlmApi(
        url=url, client_id="c", client_secret=Secret("s"), stack_id="s", flag="f", agent_id="a"
    )
    await poll(alm, WARM_UP)
    files, memory, used = descriptors(), resident(), cpu()
    await poll(alm, polls)
    result = {
        "polls": polls,
        "cpu_seconds_an_hour": round((cpu() - used) / polls * POLLS_AN_HOUR, 4),
        "rss_kib": resident(),
        "rss_growth_kib": resident() - memory,
        "descriptors_growth": descriptors() - files,
    }
    await alm.close()
    return result


async def main(polls: int) -> int:
    peer = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.bench_steady", "serve",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={**os.environ},
    )  # fmt: skip
    assert peer.stdout is not None
    assert peer.stdin is not None
    result = await measure((await peer.stdout.readline()).decode().strip(), polls)
    peer.stdin.close()
    requests = int(await peer.stdout.readline())
    await peer.wait()
    result["requests_a_minute"] = round((requests - 1) / (polls + WARM_UP) * 60 / INTERVAL, 3)
    print(json.dumps(result))
    too_much = (
        result["cpu_seconds_an_hour"] > CPU_LIMIT
        or result["rss_growth_kib"] > GROWTH_LIMIT
        or result["descriptors_growth"] > 0
    )
    return 1 if too_much else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        sys.exit(asyncio.run(main(int(sys.argv[1]) if sys.argv[1:] else 10_000)))
