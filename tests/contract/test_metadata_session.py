"""Tokens of the AWS kind: their life, their loss, and when to go without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from time import monotonic

import pytest

from almagent.adapters.metadata.aws import Aws
from almagent.adapters.metadata.client import Client
from almagent.adapters.metadata.session import Session
from almagent.ports import Unavailable
from tests.peers.metadata import HTML, AwsPeer, Fault, Reply

ID = AwsPeer.id_path
TOKEN = AwsPeer.token_path


class Clock:
    """One time for the service and its client."""

    def __init__(self) -> None:
        self.time = 5000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def peer(clock: Clock) -> AsyncIterator[AwsPeer]:
    async with AwsPeer(v1=False, life=2, now=clock) as peer:
        yield peer


def session(peer: AwsPeer, now: Callable[[], float] = monotonic) -> Session:
    return Session(Client(peer.url, timeout=10), AwsPeer.header, now=now)


async def test_a_token_is_used_for_its_life_and_renewed_before_its_end(
    peer: AwsPeer, clock: Clock
) -> None:
    reader = session(peer, clock)
    for _ in range(10):  # 5 s of a life of 2 s
        assert await reader.read(ID) == peer.instance_id
        clock.time += 0.5
    assert peer.given == 3
    assert peer.count()[ID] == 10  # none was refused


async def test_without_a_told_life_the_asked_one_counts(peer: AwsPeer, clock: Clock) -> None:
    peer.faults[TOKEN] = Reply(200, "abc")
    peer.tokens["abc"] = clock() + 10
    assert await session(peer, clock).read(ID) == peer.instance_id


async def test_a_lost_token_is_renewed_once() -> None:
    async with AwsPeer(v1=False) as peer:
        reader = session(peer)
        await reader.read(ID)
        peer.revoke()
        assert await reader.read(ID) == peer.instance_id
        assert peer.given == 2


async def test_a_service_that_refuses_every_token_is_unknown_not_a_storm() -> None:
    async with AwsPeer(v1=False) as peer:
        peer.faults[ID] = Reply(401)
        with pytest.raises(Unavailable, match="401"):
            await session(peer).read(ID)
        assert peer.count("PUT")[TOKEN] == 2


async def test_four_paths_share_one_token_and_one_renewal() -> None:
    async with AwsPeer(v1=False) as peer:
        cloud = Aws(peer.url, timeout=10)
        await cloud.notices()
        assert peer.given == 1
        peer.revoke()
        await cloud.notices()
        assert peer.given == 2


async def test_four_paths_share_one_failure() -> None:
    async with AwsPeer() as peer:
        peer.faults[TOKEN] = Reply(500)
        with pytest.raises(Unavailable, match="cannot get a token"):
            await Aws(peer.url, timeout=10).notices()
        assert peer.count("PUT")[TOKEN] == 1
        assert not peer.count()


@pytest.mark.parametrize("status", [404, 405])
async def test_a_service_without_tokens_is_read_plainly(status: int) -> None:
    async with AwsPeer() as peer:
        peer.faults[TOKEN] = Reply(status)
        reader = session(peer)
        assert [await reader.read(ID) for _ in range(3)] == [peer.instance_id] * 3
        assert peer.count("PUT")[TOKEN] == 1


@pytest.mark.parametrize(
    "answer",
    [
        *(Reply(status, HTML) for status in (200, 204, 301, 400, 401, 403, 429, 500, 503)),
        Fault.RESET,
    ],
    ids=str,
)
async def test_any_other_trouble_does_not_lead_to_plain_reads(answer: Reply | Fault) -> None:
    async with AwsPeer() as peer:
        peer.faults[TOKEN] = answer
        with pytest.raises(Unavailable, match=r"\Acannot [^\n]+\Z"):
            await session(peer).read(ID)
        assert not peer.count()


@pytest.mark.parametrize("status", [404, 405])
async def test_once_there_were_tokens_there_are_no_plain_reads(status: int) -> None:
    async with AwsPeer() as peer:
        reader = session(peer)
        await reader.read(ID)
        peer.revoke()
        peer.faults[TOKEN] = Reply(status)
        with pytest.raises(Unavailable):
            await reader.read(ID)
        assert all(request.headers.get(AwsPeer.header) for request in peer.requests[1:-1])
        del peer.faults[TOKEN]
        assert await reader.read(ID) == peer.instance_id


async def test_a_service_that_begins_to_want_tokens_gets_them() -> None:
    async with AwsPeer(v2=False) as peer:
        reader = session(peer)
        await reader.read(ID)
        peer.v1, peer.v2 = False, True
        assert await reader.read(ID) == peer.instance_id


async def test_a_switched_off_service_is_named() -> None:
    async with AwsPeer() as peer:
        peer.faults[TOKEN] = Reply(403)
        with pytest.raises(Unavailable, match="switched off"):
            await session(peer).read(ID)


async def test_a_silent_token_call_hints_at_the_hop_limit_and_is_waited_for_once() -> None:
    async with AwsPeer() as peer:
        peer.faults[TOKEN] = Fault.STALL
        start = monotonic()
        with pytest.raises(Unavailable, match="hop limit"):
            await Aws(peer.url, timeout=0.3).notices()
        assert monotonic() - start < 0.9
        assert peer.count("PUT")[TOKEN] == 1


async def test_a_refused_connection_has_nothing_to_do_with_hops() -> None:
    async with AwsPeer() as peer:
        await peer.stop()
        with pytest.raises(Unavailable) as caught:
            await session(peer).read(ID)
        assert "hop" not in str(caught.value)


async def test_a_cancelled_renewal_blocks_nobody() -> None:
    async with AwsPeer() as peer:
        reader = session(peer)
        peer.faults[TOKEN] = Fault.STALL
        first = asyncio.create_task(reader.read(ID))
        async with asyncio.timeout(10):
            while not peer.requests:
                await asyncio.sleep(0.01)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            del peer.faults[TOKEN]
            assert await reader.read(ID) == peer.instance_id
