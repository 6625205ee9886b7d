"""The delivery loop over the real adapter and a real socket: what arrives, in which order, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from structlog.testing import capture_logs

from almagent.adapters.api import AlmApi
from almagent.core.model import AgentStatus, AgentWord, ContainerStatus, Secret
from almagent.core.outbox import Outbox
from almagent.pacing import Phase
from almagent.reporter import Reporter
from tests.peers.api import (
    AGENT_STATUS,
    CONTAINER_STATUS,
    STATUSES,
    TOKEN,
    Behaviour,
    ScriptedApi,
    cut,
    reply,
    silence,
)

INTERVAL = 0.2  # seconds between the moments at which failures are tried again
STARTING = AgentStatus(AgentWord.STARTING)
UPTODATE = AgentStatus(AgentWord.UPTODATE)
SPOT = AgentStatus(AgentWord.SPOT_TERMINATE, "terminate at 12:00")
RUNNING = ContainerStatus("c" * 64, "running")


@dataclass
class Site:
    api: ScriptedApi
    reporter: Reporter
    outbox: Outbox
    saved: list[int] = field(default_factory=list)  # how many waited, at each save

    async def arrived(self, *words: str) -> None:
        """Until the API has had just these, sent again or not, and nothing waits."""
        async with asyncio.timeout(5):
            while len(self.outbox) or len(self.api.words()) < len(words):
                await asyncio.sleep(0.01)
        assert self.api.words() == list(words)


@asynccontextmanager
async def reporting(*, disk_works: bool = True) -> AsyncIterator[Site]:
    """With the smallest of random numbers: the first new try comes at once."""
    async with ScriptedApi() as api:
        alm = AlmApi(
            url=api.url, client_id="c", client_secret=Secret("s"),
            stack_id="s", flag="f", agent_id="a", timeout=1.0,
        )  # fmt: skip
        outbox = Outbox()

        def save() -> bool:
            site.saved.append(len(outbox))
            return disk_works

        reporter = Reporter(outbox, alm, save, Phase("a", INTERVAL, lambda: 0.0))
        site = Site(api, reporter, outbox)
        run = asyncio.create_task(reporter.run())
        try:
            yield site
        finally:
            run.cancel()
            await asyncio.wait([run])
            await alm.close()


async def test_what_is_offered_is_saved_before_it_is_sent_and_after_it_arrived():
    async with reporting() as site:
        site.reporter.offer([STARTING, RUNNING])
        assert site.saved == [2]
        assert site.api.requests == []
        await site.arrived("starting", "running")
        assert site.saved == [2, 1, 0]
        site.reporter.offer([STARTING, RUNNING])
        assert site.saved == [2, 1, 0]


async def test_a_disk_that_refuses_does_not_stop_reports():
    async with reporting(disk_works=False) as site:
        site.reporter.offer([STARTING])
        await site.arrived("starting")


async def test_a_final_refusal_drops_that_status_and_says_so():
    async with reporting() as site:
        site.api.script(AGENT_STATUS, reply(422))
        with capture_logs() as logs:
            site.reporter.offer([STARTING, RUNNING])
            await site.arrived("starting", "running")
        assert [entry["event"] for entry in logs] == ["status.refused"]


@pytest.mark.parametrize(
    "failure",
    [reply(500), reply(401), reply(408), cut(), silence()],
    ids=["500", "401", "408", "cut", "silence"],
)
async def test_a_failure_is_tried_again_before_anything_later(failure: Behaviour):
    async with reporting() as site:
        site.api.script(AGENT_STATUS, failure, failure)
        site.reporter.offer([STARTING, RUNNING])
        await site.arrived("starting", "starting", "starting", "running")


async def test_retry_after_is_obeyed():
    async with reporting() as site:
        site.api.script(AGENT_STATUS, reply(503, headers={"Retry-After": "1"}))
        site.reporter.offer([STARTING])
        await site.arrived("starting", "starting")
        first, second = site.api.asked(AGENT_STATUS)
        assert 1.0 <= second.at - first.at < 1.5


async def test_a_secret_that_is_refused_for_a_while_loses_nothing_and_makes_no_storm():
    async with reporting() as site:
        site.api.always(TOKEN, reply(401))
        site.reporter.offer([STARTING, RUNNING])
        await asyncio.sleep(5 * INTERVAL)
        assert len(site.api.asked(TOKEN)) <= 8
        site.api.always(TOKEN, None)
        await site.arrived("starting", "running")


async def test_a_notice_does_not_wait_for_the_end_of_a_backoff():
    async with reporting() as site:
        for path in STATUSES:
            site.api.script(path, reply(503, headers={"Retry-After": "600"}))
        site.reporter.offer([RUNNING, UPTODATE])
        while not site.api.asked(CONTAINER_STATUS):
            await asyncio.sleep(0.01)
        site.api._scripts.clear()
        offered = time.monotonic()
        site.reporter.offer([SPOT])
        await site.arrived("running", "spot_terminate", "running", "uptodate")
        assert site.api.asked(AGENT_STATUS)[0].at - offered < 0.5


async def test_a_flush_sends_what_waits_or_ends_in_time():
    async with reporting() as site:
        await site.api.stop()
        site.reporter.offer([STARTING, RUNNING, UPTODATE])
        started = time.monotonic()
        assert not await site.reporter.flush(started + 0.3)
        assert time.monotonic() - started < 0.6
        await site.api.start()
        assert await site.reporter.flush(time.monotonic() + 2)
        assert site.api.words() == ["starting", "running", "uptodate"]
