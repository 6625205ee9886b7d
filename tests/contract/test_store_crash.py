"""kill -9 at random moments while statuses flow to an API: none is lost, order is kept."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.peers.api import AGENT_STATUS, ScriptedApi

AT_WORK, STARTING = 80, 20  # kills
SEED = 5
ROOT = Path(__file__).parent.parent.parent


async def test_a_hundred_kills_lose_nothing_and_repeat_only_what_was_in_flight(tmp_path: Path):
    rng = random.Random(SEED)
    orders = [f"at work {rng.uniform(0, 0.1):.4f}" for _ in range(AT_WORK)]
    orders += [f"starting {rng.uniform(0, 0.03):.4f}" for _ in range(STARTING)]
    rng.shuffle(orders)
    state = tmp_path / "state" / "state.json"
    ends: list[int] = []  # how many statuses had arrived when each agent was killed
    made = 0
    async with ScriptedApi() as api, crashing(api.url, state) as obey:
        for order in [*orders, "end"]:
            made = await obey(order)
            await api.quiet()
            ends.append(len(api.asked(AGENT_STATUS)))
    arrived = [int(request.json["message"]) for request in api.asked(AGENT_STATUS)]
    assert made >= AT_WORK
    assert [number for number, _ in itertools.groupby(arrived)] == list(range(1, made + 1))
    repeats = {i for i, (a, b) in enumerate(itertools.pairwise(arrived), start=1) if a == b}
    assert repeats <= set(ends)  # only ever the first status of the next agent
    assert {file.name for file in state.parent.iterdir()} <= {"state.json", "state.json.tmp"}


@asynccontextmanager
async def crashing(url: str, state: Path) -> AsyncIterator[Callable[[str], Awaitable[int]]]:
    """Hands an order to the peer and returns how many statuses have been made by then."""
    peer = await asyncio.create_subprocess_exec(
        sys.executable, ROOT / "tests/peers/crashing_reporter.py", url, state,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert peer.stdin is not None
    assert peer.stdout is not None
    orders, answers = peer.stdin, peer.stdout

    async def obey(order: str) -> int:
        orders.write(f"{order}\n".encode())
        return int(await answers.readline())

    try:
        yield obey
    finally:
        orders.close()
        assert await peer.wait() == 0
