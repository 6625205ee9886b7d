"""Each cloud's own notice, from its own service to the control plane, by the whole agent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.peers.agent import Agent
from tests.peers.api import ScriptedApi
from tests.peers.metadata import (
    AlicloudPeer,
    AwsPeer,
    AzurePeer,
    Fault,
    GcpPeer,
    MetadataPeer,
    OpenStackPeer,
    TencentPeer,
    utc,
)
from tests.scenario.releases import document

INTERVAL = 0.5  # seconds between two polls


@dataclass(frozen=True)
class Announcement:
    """`value()` appears at `path` of the peer: the instance goes away."""

    peer: Callable[[], MetadataPeer]
    path: str
    value: Callable[[], str]


def azure(kind: str) -> str:
    return AzurePeer.document(AzurePeer.event(kind, EventStatus="Started", NotBefore=""))


ANNOUNCEMENTS = {
    "aws spot": Announcement(AwsPeer, AwsPeer.spot, lambda: AwsPeer.notice(60)),
    "aws spot v2 only": Announcement(
        lambda: AwsPeer(v1=False), AwsPeer.spot, lambda: AwsPeer.notice(60, "stop")
    ),
    "aws auto scaling": Announcement(AwsPeer, AwsPeer.autoscaling, lambda: "Terminated"),
    "gcp preemption": Announcement(GcpPeer, GcpPeer.preempted, lambda: "TRUE"),
    "gcp maintenance": Announcement(
        GcpPeer, GcpPeer.maintenance, lambda: "TERMINATE_ON_HOST_MAINTENANCE"
    ),
    "azure preemption": Announcement(AzurePeer, AzurePeer.events, lambda: azure("Preempt")),
    "azure termination": Announcement(AzurePeer, AzurePeer.events, lambda: azure("Terminate")),
    "alicloud": Announcement(AlicloudPeer, AlicloudPeer.spot, lambda: utc(60)),
    "tencent": Announcement(TencentPeer, TencentPeer.spot, lambda: TencentPeer.notice(60)),
}


async def serve(agent: Agent, peer: MetadataPeer) -> None:
    cloud = {"provider": "auto", "endpoint": peer.url, "poll_interval": INTERVAL}
    agent.configure(cloud=cloud)
    await agent.start()
    await agent.until_told("uptodate")


def instances(api: ScriptedApi) -> set[str]:
    """Ids that statuses carried."""
    bodies = [request.json for request in api.requests if request.method == "POST"]
    return {body["instance_id"] for body in bodies if "instance_id" in body}


@pytest.mark.parametrize("said", ANNOUNCEMENTS.values(), ids=ANNOUNCEMENTS)
async def test_the_end_of_the_instance_is_told_once_and_the_container_drained(
    agent: Agent, api: ScriptedApi, image: str, port: int, said: Announcement
):
    api.document = document(image, port)
    async with said.peer() as peer:
        await serve(agent, peer)
        before = len(agent.statuses())
        await peer.put(said.path, said.value())
        await agent.until_told("spot_terminate", patience=INTERVAL + 1)
        await agent.until_told("terminated")
        await agent.until(lambda: not agent.containers(), "container removed", 3)
        await asyncio.sleep(3 * INTERVAL)
        assert [word for word, _ in agent.statuses()[before:]] == ["spot_terminate", "terminated"]
        assert instances(api) == {peer.instance_id}  # type: ignore[attr-defined]


async def test_openstack_announces_nothing(agent: Agent, api: ScriptedApi, image: str, port: int):
    api.document = document(image, port)
    async with OpenStackPeer() as peer:
        await serve(agent, peer)
        await asyncio.sleep(3 * INTERVAL)
        assert agent.words()[-1] == "uptodate"
        assert instances(api) == {peer.instance_id}


async def test_a_service_that_is_silent_at_a_restart_is_watched_all_the_same(
    agent: Agent, api: ScriptedApi, image: str, port: int
):
    api.document = document(image, port)
    async with AwsPeer() as peer:
        await serve(agent, peer)
        await agent.end()
        asked = len(peer.requests)
        peer.faults = {peer.token_path: Fault.STALL, peer.id_path: Fault.STALL}
        await agent.start()
        await agent.until_told("starting", 3)
        assert instances(api) == {peer.instance_id}
        await agent.until(lambda: agent.logged("metadata.unknown"), "it is silent")
        assert peer.requests[asked].path == peer.token_path
        peer.faults = {}
        await peer.put(peer.spot, peer.notice(30))
        await agent.until_told("spot_terminate")
        await agent.until_told("terminated")


async def test_a_service_that_comes_up_after_the_agent_is_found(
    agent: Agent, api: ScriptedApi, image: str, port: int
):
    api.document = document(image, port)
    async with AwsPeer() as peer:
        peer.faults = {peer.token_path: Fault.RESET, peer.id_path: Fault.RESET}
        await serve(agent, peer)
        assert instances(api) <= {""}
        before = len(agent.statuses())
        peer.faults = {}
        await agent.until_told("uptodate", 2, patience=30)
        assert [word for word, _ in agent.statuses()[before:]] == ["starting", "uptodate"]
        assert peer.instance_id in instances(api)
        await peer.put(peer.spot, peer.notice(30))
        await agent.until_told("spot_terminate", patience=INTERVAL + 1)
        await agent.until_told("terminated")
