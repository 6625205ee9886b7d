"""A thousand agents in virtual time, over the real pacing and the real delivery loop."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from almagent.core.model import AgentStatus, AgentWord, ContainerStatus, Status
from almagent.core.outbox import Outbox
from almagent.pacing import PATIENCE, Phase, pause
from almagent.ports import ControlPlane, Unavailable
from almagent.reporter import Reporter
from tests.peers import virtual_time

AGENTS = 1000
INTERVAL = 30.0
SPLAY = 2.0
AVERAGE = AGENTS / INTERVAL  # polls a second
CALL = 0.05  # seconds that a call takes


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """A thousand agents have a lot to log."""
    with capture_logs():
        yield


@dataclass
class Api:
    """Counts calls by the second, apart for those it answers and those it does not."""

    up: bool = True
    polls: Counter[int] = field(default_factory=Counter)
    posts: Counter[int] = field(default_factory=Counter)
    failed: Counter[int] = field(default_factory=Counter)

    async def call(self, calls: Counter[int]) -> None:
        second = int(now())
        await asyncio.sleep(CALL)
        (calls if self.up else self.failed)[second] += 1
        if not self.up:
            raise Unavailable("cannot reach it")

    async def fetch_document(self) -> bytes | None:
        await self.call(self.polls)
        return None

    async def post(self, _status: Status) -> None:
        await self.call(self.posts)

    def between(self, start: float, end: float) -> list[int]:
        seconds = range(int(start) + 1, int(end))
        return [self.polls[second] + self.posts[second] for second in seconds]


@dataclass
class Agent:
    phase: Phase
    reporter: Reporter
    outbox: Outbox


def now() -> float:
    return asyncio.get_running_loop().time()


def make(api: ControlPlane, n: int, rng: random.Random) -> Agent:
    outbox = Outbox()
    moments = Phase(f"agent-{n}/reports", INTERVAL, rng.random)
    reporter = Reporter(outbox, api, lambda: True, moments, clock=now)
    return Agent(Phase(f"agent-{n}", INTERVAL, rng.random), reporter, outbox)


async def poll(agent: Agent, api: ControlPlane) -> None:
    never = asyncio.Event()
    await pause(never, agent.phase.first_wait(SPLAY))
    agent.reporter.offer([AgentStatus(AgentWord.STARTING)], force=True)
    while True:
        try:
            await api.fetch_document()
        except Unavailable as error:
            agent.phase.failed(error.retry_after)
        else:
            agent.phase.succeeded()
        await pause(never, agent.phase.next_wait(now()))


def test_a_fleet_that_starts_at_once_is_spread_after_the_first_contact():
    async def story() -> None:
        api, rng = Api(), random.Random(1)
        async with asyncio.TaskGroup() as group:
            agents = [make(api, n, rng) for n in range(AGENTS)]
            loops = [group.create_task(poll(agent, api)) for agent in agents]
            loops += [group.create_task(agent.reporter.run()) for agent in agents]
            await asyncio.sleep(SPLAY + 1)
            assert sum(api.polls.values()) >= AGENTS
            assert sum(api.posts.values()) == AGENTS
            await asyncio.sleep(10 * INTERVAL)
            later = api.between(SPLAY + 1, now())
            assert max(later) <= 2 * AVERAGE
            assert sum(later) / len(later) == pytest.approx(AVERAGE, rel=0.02)
            for loop in loops:
                loop.cancel()

    virtual_time.run(story())


@pytest.mark.parametrize(
    ("outage", "waiting"),
    [(20, 3), (60, 10), (1200, 10)],
    ids=["20 s", "1 min", "20 min"],
)
def test_a_fleet_that_meets_the_api_again_at_once_comes_spread(outage: float, waiting: int):
    """In no second more than twice the average of the time until the last outbox is empty."""

    async def story() -> None:
        api, rng = Api(), random.Random(2)
        agents = [make(api, n, rng) for n in range(AGENTS)]
        async with asyncio.TaskGroup() as group:
            loops = [group.create_task(poll(agent, api)) for agent in agents]
            loops += [group.create_task(agent.reporter.run()) for agent in agents]
            await asyncio.sleep(3 * INTERVAL)
            api.up = False
            await away(agents, outage, waiting, rng)
            api.up, back = True, now()
            while any(len(agent.outbox) for agent in agents):
                await asyncio.sleep(1)
            rates = api.between(back, now())
            assert max(rates) <= 2 * sum(rates) / len(rates)
            assert (
                max(calls for second, calls in api.polls.items() if second > SPLAY) <= 2 * AVERAGE
            )
            assert now() - back < 330
            for loop in loops:
                loop.cancel()

    virtual_time.run(story())


async def away(agents: list[Agent], outage: float, waiting: int, rng: random.Random) -> None:
    """Every agent has something to say `waiting` times, each at moments of its own."""
    moments = sorted(
        (rng.uniform(0, outage), n) for n in range(len(agents)) for _ in range(waiting)
    )
    start = now()
    for number, (moment, n) in enumerate(moments):
        await asyncio.sleep(max(0.0, start + moment - now()))
        agents[n].reporter.offer([AgentStatus(AgentWord.ERROR, f"{number}")])
    await asyncio.sleep(start + outage - now())


class Scripted:
    """One agent's control plane: records what arrives, and when."""

    def __init__(self) -> None:
        self.up = True
        self.arrived: list[Status] = []
        self.times: list[float] = []

    async def fetch_document(self) -> bytes | None:
        return None

    async def post(self, status: Status) -> None:
        await asyncio.sleep(CALL)
        if not self.up:
            raise Unavailable("cannot reach it")
        self.arrived.append(status)
        self.times.append(now())


def test_after_an_hour_every_transition_arrives_once_in_order_and_not_in_a_burst():
    async def story() -> None:
        api = Scripted()
        agent = make(api, 1, random.Random(3))
        run = asyncio.create_task(agent.reporter.run())
        api.up = False
        told: list[Status] = []
        for n in range(500):
            told.append(ContainerStatus("c", ("running", "restarting")[n % 2]))
            agent.reporter.offer(told[-1:])
            await asyncio.sleep(3600 / 500)
        api.up, back = True, now()
        while len(agent.outbox):
            await asyncio.sleep(1)
        assert api.arrived == told
        seconds = Counter(int(moment) for moment in api.times)
        assert max(seconds.values()) <= 10
        assert seconds[int(api.times[0])] <= 2
        assert now() - back < 300 + INTERVAL + 90
        run.cancel()

    virtual_time.run(story())


def test_a_notice_ends_any_backoff_and_is_the_first_to_arrive():
    async def story() -> None:
        api = Scripted()
        agent = make(api, 1, random.Random(4))
        run = asyncio.create_task(agent.reporter.run())
        api.up = False
        agent.reporter.offer([AgentStatus(AgentWord.ERROR, "a"), ContainerStatus("c", "running")])
        await asyncio.sleep(3600)
        spot = AgentStatus(AgentWord.SPOT_TERMINATE, "terminate at 12:00")
        agent.reporter.offer([spot])
        await asyncio.sleep(30)
        api.up, back = True, now()
        await asyncio.sleep(20)
        assert api.arrived[0] == spot
        assert len(api.arrived) == 3
        assert api.times[0] - back < 5.5
        run.cancel()

    virtual_time.run(story())


@pytest.mark.parametrize("failures", range(12))
@pytest.mark.parametrize("interval", [1.0, 30.0, 240.0, 3600.0])
def test_a_poll_comes_at_the_hosts_own_moment_and_in_time(failures: int, interval: float):
    rng = random.Random(failures)
    phase = Phase("agent", interval, rng.random)
    for _ in range(failures):
        phase.failed()
    for start in (0.0, 17.3, 1e6):
        wait = phase.next_wait(start)
        assert 0 < wait <= (max(300.0, min(interval, 300.0)) if failures else interval)
        phase.succeeded()
        after = phase.next_wait(start + wait)
        assert after == pytest.approx(interval, abs=1e-3) or failures
        for _ in range(failures):
            phase.failed()


@pytest.mark.parametrize("interval", [0.5, 2.0, 30.0])
def test_after_a_few_failures_the_next_poll_comes_within_one_interval(interval: float):
    phase = Phase("agent", interval, lambda: 0.999)
    for _ in range(PATIENCE):
        phase.failed()
        assert phase.next_wait(17.3) <= interval
    for _ in range(10):
        phase.failed()
    assert phase.next_wait(17.3) > 200.0


def test_retry_after_is_obeyed_before_the_own_moment():
    phase = Phase("agent", 30.0, lambda: 0.0)
    phase.failed(retry_after=100.0)
    assert 100 <= phase.next_wait(5.0) <= 130
    phase.succeeded()
    assert phase.next_wait(5.0) <= 30
