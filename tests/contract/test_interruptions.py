"""The loop that asks the cloud: when the agent is to leave, and when it is to stay after all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest

from almagent.adapters.metadata.aws import Aws
from almagent.core.model import AgentStatus, AgentWord, Leave, Status
from almagent.core.notices import NoticeBook
from almagent.reconciler import Reconciler
from almagent.watchers import QUIET_POLLS, InterruptionWatcher
from tests.peers.metadata import AwsPeer, Reply

INTERVAL = 0.05
QUIET = QUIET_POLLS * INTERVAL


@dataclass
class Ear:
    """Stands where the reconciler and the outbox do."""

    left: list[Leave] = field(default_factory=list)
    told: list[Status] = field(default_factory=list)

    def leave(self, leave: Leave) -> None:
        self.left.append(leave)

    def offer(self, statuses: Sequence[Status]) -> None:
        self.told.extend(statuses)

    @property
    def words(self) -> list[AgentWord]:
        return [status.word for status in self.told if isinstance(status, AgentStatus)]


@dataclass
class Watched:
    peer: AwsPeer
    ear: Ear
    stays: asyncio.Event


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    ear, stays = Ear(), asyncio.Event()
    async with AwsPeer() as peer:
        watcher = InterruptionWatcher(
            metadata=Aws(peer.url, timeout=10),
            book=NoticeBook(),
            interval=INTERVAL,
            hook="",
            reconciler=cast("Reconciler", ear),
            offer=ear.offer,
            chance=lambda: 0.0,
            begin_anew=stays.set,
        )
        loop = asyncio.create_task(watcher.run())
        yield Watched(peer, ear, stays)
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)


async def until_left(watched: Watched) -> None:
    async with asyncio.timeout(10):
        while not watched.ear.left:
            await asyncio.sleep(0.01)


async def test_a_notice_that_is_gone_long_after_its_time_lets_the_agent_stay(watched: Watched):
    await watched.peer.put(watched.peer.spot, watched.peer.notice(-5, "hibernate"))
    await until_left(watched)
    await watched.peer.put(watched.peer.spot, None)
    async with asyncio.timeout(10):
        await watched.stays.wait()
    await asyncio.sleep(QUIET)
    assert watched.ear.words == [AgentWord.SPOT_TERMINATE, AgentWord.NOTICE]


async def test_a_notice_withdrawn_before_its_time_does_not(watched: Watched):
    await watched.peer.put(watched.peer.spot, watched.peer.notice(60))
    await until_left(watched)
    await watched.peer.put(watched.peer.spot, None)
    await asyncio.sleep(3 * QUIET)
    assert not watched.stays.is_set()


async def test_a_group_that_takes_its_word_back_lets_the_agent_stay(watched: Watched):
    await watched.peer.put(watched.peer.autoscaling, "Terminated")
    await until_left(watched)
    await watched.peer.put(watched.peer.autoscaling, "InService")
    async with asyncio.timeout(10):
        await watched.stays.wait()


async def test_unknown_answers_are_no_reason_to_stay(watched: Watched):
    await watched.peer.put(watched.peer.spot, watched.peer.notice(-5, "hibernate"))
    await until_left(watched)
    await watched.peer.put(watched.peer.spot, None)
    watched.peer.faults[watched.peer.spot] = Reply(503)
    await asyncio.sleep(3 * QUIET)
    assert not watched.stays.is_set()


async def test_who_never_left_has_nothing_to_come_back_from(watched: Watched):
    await asyncio.sleep(2 * QUIET)
    assert not watched.stays.is_set()
    assert watched.ear.told == []
