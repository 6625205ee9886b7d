"""What is particular to one cloud: partial answers, long polls, whose event it is."""

from __future__ import annotations

import asyncio
import json
from time import monotonic

import pytest

from almagent.adapters.metadata.alicloud import Alicloud
from almagent.adapters.metadata.aws import Aws
from almagent.adapters.metadata.azure import Azure
from almagent.adapters.metadata.gcp import Gcp
from almagent.ports import Unavailable
from tests.contract.test_metadata import aws_event
from tests.peers.metadata import AlicloudPeer, AwsPeer, AzurePeer, Fault, GcpPeer, Reply

SPOT = '{"action": "terminate", "time": "2026-01-05T18:02:00Z"}'
MAINTENANCE = "aws/maintenance/instance-event-0d59937288b749b32"
LATER = '{"action": "terminate", "time": "2026-01-05T18:04:00Z"}'


# --- AWS -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Reply(500), Reply(200, "<html>"), Fault.STALL])
async def test_a_broken_path_hides_no_notice_of_another(fault: Reply | Fault) -> None:
    async with AwsPeer() as peer:
        peer.values[peer.spot] = SPOT
        peer.faults[peer.rebalance] = fault
        (notice,) = await Aws(peer.url, timeout=0.5).notices()
        assert notice.key == "aws/spot"


async def test_only_a_clear_answer_withdraws_a_notice() -> None:
    async with AwsPeer() as peer:
        cloud = Aws(peer.url, timeout=10)
        peer.values |= {peer.spot: SPOT, peer.rebalance: '{"noticeTime": "2026-01-05T18:00:00Z"}'}
        both = await cloud.notices()
        peer.faults[peer.rebalance] = Reply(503)
        assert await cloud.notices() == both
        del peer.faults[peer.rebalance], peer.values[peer.rebalance]
        (notice,) = await cloud.notices()
        assert notice.key == "aws/spot"


async def test_a_moved_time_keeps_the_key() -> None:
    async with AwsPeer() as peer:
        cloud = Aws(peer.url, timeout=10)
        peer.values[peer.spot] = SPOT
        (first,) = await cloud.notices()
        peer.values[peer.spot] = LATER
        (second,) = await cloud.notices()
        assert first.key == second.key
        assert first.deadline and second.deadline == first.deadline + 120


@pytest.mark.parametrize("state", ["completed", "canceled"])
async def test_past_maintenance_is_no_notice(state: str) -> None:
    async with AwsPeer() as peer:
        peer.values[peer.maintenance] = json.dumps([aws_event(State=state)])
        assert await Aws(peer.url, timeout=10).notices() == ()


async def test_an_event_that_is_not_understood_hides_no_other() -> None:
    async with AwsPeer() as peer:
        events = [aws_event(Code="explode"), aws_event(EventId="instance-event-2"), 7]
        peer.values[peer.maintenance] = json.dumps(events)
        (notice,) = await Aws(peer.url, timeout=10).notices()
        assert notice.key == "aws/maintenance/instance-event-2"


async def told(cloud: Aws, polls: int) -> list[list[str]]:
    return [[notice.key for notice in await cloud.notices()] for _ in range(polls)]


async def test_maintenance_which_is_announced_days_before_is_read_at_each_sixth_poll() -> None:
    async with AwsPeer() as peer:
        cloud = Aws(peer.url, timeout=10)
        peer.values |= {peer.maintenance: json.dumps([aws_event()]), peer.spot: SPOT}
        assert await told(cloud, 12) == [["aws/spot", MAINTENANCE]] * 12
        asked = peer.count()
        assert (asked[peer.maintenance], asked[peer.spot]) == (2, 12)


async def test_maintenance_that_is_not_told_any_more_is_asked_for_again_at_the_next_poll() -> None:
    """A notice is gone when two answers in a row lack it."""
    async with AwsPeer() as peer:
        cloud = Aws(peer.url, timeout=10)
        peer.values[peer.maintenance] = json.dumps([aws_event()])
        assert await told(cloud, 1) == [[MAINTENANCE]]
        peer.values[peer.maintenance] = "[]"
        assert await told(cloud, 6) == [[MAINTENANCE]] * 5 + [[]]
        peer.values[peer.maintenance] = json.dumps([aws_event()])
        assert await told(cloud, 1) == [[MAINTENANCE]]


async def test_maintenance_is_asked_for_at_each_poll_until_the_answer_is_clear() -> None:
    async with AwsPeer() as peer:
        cloud = Aws(peer.url, timeout=10)
        peer.faults[peer.maintenance] = Reply(503)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await cloud.notices()
        del peer.faults[peer.maintenance]
        peer.values[peer.maintenance] = json.dumps([aws_event()])
        assert await told(cloud, 1) == [[MAINTENANCE]]


async def test_maintenance_in_hand_counts_while_anything_answers() -> None:
    async with AwsPeer() as peer:
        cloud = Aws(peer.url, timeout=10)
        peer.values[peer.maintenance] = json.dumps([aws_event()])
        peer.faults[peer.autoscaling] = Reply(503)
        assert await told(cloud, 7) == [[MAINTENANCE]] * 7
        peer.faults |= {peer.spot: Reply(503), peer.rebalance: Reply(503)}
        with pytest.raises(Unavailable):
            await cloud.notices()


@pytest.mark.parametrize("state", ["Detached", "Standby", "Warmed:Stopped"])
async def test_other_lifecycle_states_are_no_notice(state: str) -> None:
    async with AwsPeer() as peer:
        peer.values[peer.autoscaling] = state
        assert await Aws(peer.url, timeout=10).notices() == ()


@pytest.mark.parametrize("time", ["", "tomorrow", "2026-01-05T18:02:00", "0001-01-01T00:00:00Z"])
async def test_a_spot_notice_without_a_time_of_our_days_is_unknown(time: str) -> None:
    async with AwsPeer() as peer:
        peer.values[peer.spot] = json.dumps({"action": "terminate", "time": time})
        with pytest.raises(Unavailable, match="cannot understand"):
            await Aws(peer.url, timeout=10).notices()


@pytest.mark.parametrize("text", ["i-123", "i-1234567890abcdefX", "none", "", "i-" + "a" * 18])
async def test_only_an_ec2_id_is_an_instance_id(text: str) -> None:
    async with AwsPeer() as peer:
        peer.values[peer.id_path] = text
        with pytest.raises(Unavailable):
            await Aws(peer.url, timeout=10).instance_id()


# --- Google --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "word"),
    [
        (GcpPeer.preempted, "TRUE"),
        (GcpPeer.maintenance, "TERMINATE_ON_HOST_MAINTENANCE"),
    ],
)
async def test_a_change_ends_the_long_poll(path: str, word: str) -> None:
    async with GcpPeer() as peer:
        cloud = Gcp(peer.url, timeout=10, wait=60)
        assert await cloud.notices() == ()
        poll = asyncio.create_task(cloud.notices())
        async with asyncio.timeout(10):
            while peer.waiting < 2:
                await asyncio.sleep(0.01)
            await peer.put(path, word)
            (notice,) = await poll
        assert notice.terminal


async def test_a_long_poll_without_news_ends_in_time() -> None:
    async with GcpPeer() as peer:
        cloud = Gcp(peer.url, timeout=10, wait=1)
        await cloud.notices()
        start = monotonic()
        assert await cloud.notices() == ()
        assert 0.9 < monotonic() - start < 5


async def test_a_change_between_two_calls_is_not_lost() -> None:
    async with GcpPeer() as peer:
        cloud = Gcp(peer.url, timeout=10, wait=60)
        await cloud.notices()
        await peer.put(peer.preempted, "TRUE")
        async with asyncio.timeout(10):
            assert await cloud.notices()


@pytest.mark.parametrize("fault", [Reply(503, "", {"Metadata-Flavor": "Google"}), Fault.RESET])
async def test_a_service_that_cannot_wait_is_unknown_at_once(fault: Reply | Fault) -> None:
    async with GcpPeer() as peer:
        cloud = Gcp(peer.url, timeout=10, wait=60)
        await cloud.notices()
        peer.faults[peer.preempted] = fault
        async with asyncio.timeout(10):
            with pytest.raises(Unavailable):
                await cloud.notices()


async def test_a_service_that_does_not_hold_back_is_polled() -> None:
    async with GcpPeer(holds=False) as peer:
        cloud = Gcp(peer.url, timeout=10, wait=60)
        async with asyncio.timeout(10):
            assert [await cloud.notices() for _ in range(3)] == [()] * 3
        assert peer.count()[peer.preempted] <= 5


async def test_cancelling_a_long_poll_closes_its_connections() -> None:
    async with GcpPeer() as peer:
        cloud = Gcp(peer.url, timeout=10, wait=60)
        await cloud.notices()
        poll = asyncio.create_task(cloud.notices())
        async with asyncio.timeout(10):
            while peer.waiting < 2:
                await asyncio.sleep(0.01)
        poll.cancel()
        with pytest.raises(asyncio.CancelledError):
            await poll


async def test_the_deadline_counts_from_the_first_sight() -> None:
    clock = [1000.0]
    async with GcpPeer(holds=False) as peer:
        cloud = Gcp(peer.url, timeout=10, now=lambda: clock[0])
        peer.values[peer.preempted] = "TRUE"
        (first,) = await cloud.notices()
        clock[0] += 7
        (second,) = await cloud.notices()
        assert (first.deadline, second.deadline) == (1030, 1030)
        peer.values[peer.preempted] = "FALSE"
        assert await cloud.notices() == ()
        peer.values[peer.preempted] = "TRUE"
        (third,) = await cloud.notices()
        assert third.deadline == 1037


async def test_an_answer_that_is_not_from_google_is_unknown() -> None:
    async with GcpPeer() as peer:
        peer.faults[peer.preempted] = Reply(200, "TRUE")
        with pytest.raises(Unavailable, match="not from Google"):
            await Gcp(peer.url, timeout=10).notices()


# --- Azure ---------------------------------------------------------------------------------------


async def test_events_of_other_machines_are_not_ours() -> None:
    async with AzurePeer() as peer:
        peer.values[peer.events] = peer.document(
            peer.event("Preempt", Resources=["WestNO_1", "WestNO_01"]), peer.event("Reboot")
        )
        (notice,) = await Azure(peer.url, timeout=10).notices()
        assert (notice.terminal, notice.what) == (False, "reboot at 2026-01-05T18:02:00Z")


async def test_names_of_machines_have_no_case() -> None:
    async with AzurePeer() as peer:
        peer.values[peer.events] = peer.document(peer.event("Preempt", Resources=["westno_0"]))
        (notice,) = await Azure(peer.url, timeout=10).notices()
        assert notice.terminal


async def test_a_started_event_has_no_time() -> None:
    async with AzurePeer() as peer:
        event = peer.event("Preempt", EventStatus="Started", NotBefore="")
        peer.values[peer.events] = peer.document(event)
        (notice,) = await Azure(peer.url, timeout=10).notices()
        assert (notice.terminal, notice.deadline) == (True, None)


async def test_a_long_list_of_events_is_read() -> None:
    async with AzurePeer() as peer:
        others = [peer.event("Freeze", Resources=[f"other_{n}"], EventId=f"{n}") for n in range(99)]
        peer.values[peer.events] = peer.document(*others, peer.event("Preempt"))
        (notice,) = await Azure(peer.url, timeout=10).notices()
        assert notice.terminal


@pytest.mark.parametrize("extra", [{}, {"DocumentIncarnation": "one"}])
async def test_a_list_of_events_without_its_number_is_unknown(extra: dict[str, str]) -> None:
    async with AzurePeer() as peer:
        peer.values[peer.events] = json.dumps({"Events": [peer.event("Preempt")], **extra})
        with pytest.raises(Unavailable, match="DocumentIncarnation"):
            await Azure(peer.url, timeout=10).notices()


@pytest.mark.parametrize("reply", [Reply(404), Reply(500), Reply(200, "<html>")])
async def test_without_the_machine_s_name_events_are_unknown(reply: Reply) -> None:
    async with AzurePeer() as peer:
        peer.values[peer.events] = peer.document(peer.event("Preempt"))
        peer.faults[peer.name_path] = reply
        with pytest.raises(Unavailable):
            await Azure(peer.url, timeout=10).notices()


# --- Alibaba -------------------------------------------------------------------------------------


async def test_an_empty_termination_time_is_none() -> None:
    async with AlicloudPeer() as peer:
        peer.values[peer.spot] = ""
        assert await Alicloud(peer.url, timeout=10).notices() == ()


@pytest.mark.parametrize(("v1", "v2"), [(True, False), (True, True), (False, True)])
async def test_both_access_modes(v1: bool, v2: bool) -> None:
    async with AlicloudPeer(v1=v1, v2=v2) as peer:
        assert await Alicloud(peer.url, timeout=10).instance_id() == peer.instance_id
