"""What is particular to Tencent Cloud: how it writes times, and whose instance ids resemble its own."""

from __future__ import annotations

import pytest

from almagent.adapters.metadata import detect
from almagent.adapters.metadata.tencent import Tencent
from almagent.ports import Unavailable
from tests.peers.metadata import AlicloudPeer, CaptivePortal, TencentPeer


@pytest.mark.parametrize(
    "text", ["", "soon", "2026-01-05", "18:02:00", "2026-13-05 18:02:00", "2026-01-05 18:02:00 CST"]
)
async def test_only_a_time_as_documented_is_a_termination_time(text: str) -> None:
    async with TencentPeer() as peer:
        peer.values[peer.spot] = text
        with pytest.raises(Unavailable, match="cannot understand"):
            await Tencent(peer.url, timeout=10).notices()


@pytest.mark.parametrize("text", ["i-bp1h4adlltjc1d48goaq", "ins-", "ins-3G445ROI", "ins-3g445ro<"])
async def test_only_a_cvm_id_is_an_instance_id(text: str) -> None:
    async with TencentPeer() as peer:
        peer.values[peer.id_path] = text
        with pytest.raises(Unavailable, match="no CVM instance id"):
            await Tencent(peer.url, timeout=10).instance_id()


async def test_one_that_was_found_before_is_not_mistaken_for_the_other() -> None:
    async with AlicloudPeer() as alicloud, TencentPeer() as tencent, CaptivePortal() as portal:
        for peer, known, found in [
            (alicloud, "tencent", "alicloud"),
            (tencent, "alicloud", "tencent"),
            (portal, "tencent", "tencent"),
        ]:
            cloud = await detect("auto", peer.url, known=known, within=10)
            assert cloud
            assert cloud.name == found
