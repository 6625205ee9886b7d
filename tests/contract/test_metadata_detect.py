"""Which cloud is this, and who only looks like one."""

from __future__ import annotations

import socket
from collections.abc import Callable
from time import monotonic

import pytest

from almagent.adapters.metadata import class_of, detect
from almagent.adapters.metadata.client import Client
from almagent.clouds import CLOUDS
from almagent.ports import Unavailable
from tests.peers.metadata import (
    AlicloudPeer,
    AwsPeer,
    AzurePeer,
    CaptivePortal,
    Fault,
    GcpPeer,
    MetadataPeer,
    OpenStackPeer,
    Reply,
    TencentPeer,
)

CLEAR: dict[str, tuple[str, Callable[[], MetadataPeer]]] = {
    "aws": ("aws", AwsPeer),
    "aws v2 only": ("aws", lambda: AwsPeer(v1=False)),
    "aws v1 only": ("aws", lambda: AwsPeer(v2=False)),
    "gcp": ("gcp", GcpPeer),
    "azure": ("azure", AzurePeer),
    "alicloud": ("alicloud", AlicloudPeer),
    "alicloud hardened": ("alicloud", lambda: AlicloudPeer(v1=False)),
    "alicloud without tokens": ("alicloud", lambda: AlicloudPeer(v2=False)),
    "tencent": ("tencent", TencentPeer),
    "openstack that copies EC2": ("k5", OpenStackPeer),
}


@pytest.mark.parametrize(("name", "make"), CLEAR.values(), ids=CLEAR)
async def test_each_cloud_is_recognised_by_its_own_answers(
    name: str, make: Callable[[], MetadataPeer]
) -> None:
    async with make() as peer:
        cloud = await detect("auto", peer.url, within=10)
        assert cloud
        assert cloud.name == name
        assert await cloud.instance_id() == type(peer).instance_id  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "make"), CLEAR.values(), ids=CLEAR)
async def test_no_cloud_takes_another_for_itself(
    name: str, make: Callable[[], MetadataPeer]
) -> None:
    async with make() as peer:
        for other in CLOUDS.keys() - {name}:
            try:
                assert not await class_of(other)(peer.url).recognise()
            except Unavailable as exc:
                assert str(exc).startswith("cannot ")


@pytest.mark.parametrize("status", [200, 204, 301, 302, 307, 401, 403, 404, 405, 500, 503, 511])
async def test_a_captive_portal_is_no_cloud(status: int) -> None:
    async with CaptivePortal(status) as peer:
        assert await detect("auto", peer.url, within=10) is None
        assert "/login" not in peer.count()


async def test_nobody_there_is_no_cloud() -> None:
    async with MetadataPeer() as peer:
        await peer.stop()
        assert await detect("auto", peer.url) is None


async def test_silence_is_no_cloud_after_two_seconds() -> None:
    async with MetadataPeer() as peer:
        for cloud in (AwsPeer, GcpPeer, AzurePeer, OpenStackPeer):
            peer.faults[cloud.id_path] = Fault.STALL
        peer.faults[AwsPeer.token_path] = Fault.STALL
        start = monotonic()
        assert await detect("auto", peer.url) is None
        assert 1.5 < monotonic() - start < 2.7


async def test_a_service_slower_than_the_time_is_no_cloud() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # accepts by its backlog, never reads
        start = monotonic()
        assert await detect("auto", f"http://127.0.0.1:{deaf.getsockname()[1]}", within=0.3) is None
        assert monotonic() - start < 1.5


async def test_who_is_sure_is_not_kept_waiting_by_a_silent_one() -> None:
    async with AwsPeer() as peer:
        peer.faults[OpenStackPeer.id_path] = Fault.STALL
        start = monotonic()
        cloud = await detect("auto", peer.url, within=10)
        assert cloud
        assert cloud.name == "aws"
        assert monotonic() - start < 1.5


async def test_none_is_none_and_a_name_is_taken_at_its_word() -> None:
    async with MetadataPeer() as peer:
        assert await detect("none", peer.url) is None
        for name in CLOUDS:
            cloud = await detect(name, peer.url)
            assert cloud
            assert cloud.name == name
        assert not peer.requests


# --- the one that was found before ---------------------------------------------------------------


@pytest.mark.parametrize(("name", "make"), CLEAR.values(), ids=CLEAR)
async def test_the_cloud_that_was_found_before_is_asked_alone(
    name: str, make: Callable[[], MetadataPeer]
) -> None:
    async with make() as alone, make() as peer:
        assert await class_of(name)(alone.url).recognise()
        cloud = await detect("auto", peer.url, known=name, within=10)
        assert cloud
        assert cloud.name == name
        assert [r.path for r in peer.requests] == [r.path for r in alone.requests]


async def test_a_silent_service_is_still_the_one_that_was_found_before() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        start = monotonic()
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        cloud = await detect("auto", url, known="aws", within=0.4)
        assert cloud
        assert cloud.name == "aws"
        assert monotonic() - start < 1.5


@pytest.mark.parametrize("status", [200, 302, 401, 404, 503])
async def test_a_captive_portal_does_not_unseat_the_one_that_was_found_before(status: int) -> None:
    async with CaptivePortal(status) as peer:
        cloud = await detect("auto", peer.url, known="azure", within=10)
        assert cloud
        assert cloud.name == "azure"


@pytest.mark.parametrize(("name", "make"), CLEAR.values(), ids=CLEAR)
async def test_a_disk_that_was_moved_to_another_cloud_is_where_it_is(
    name: str, make: Callable[[], MetadataPeer]
) -> None:
    async with make() as peer:
        for known in (*CLOUDS, "no longer supported"):
            cloud = await detect("auto", peer.url, known=known, within=10)
            assert cloud
            assert cloud.name == name


async def test_a_setting_counts_more_than_what_was_found_before() -> None:
    async with AwsPeer() as peer:
        assert await detect("none", peer.url, known="aws") is None
        cloud = await detect("gcp", peer.url, known="aws")
        assert cloud
        assert cloud.name == "gcp"


# --- one request ---------------------------------------------------------------------------------


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with MetadataPeer() as proxy, GcpPeer() as peer:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert await class_of("gcp")(peer.url).instance_id() == peer.instance_id
        assert not proxy.requests


async def test_a_redirect_is_not_followed() -> None:
    async with AwsPeer() as elsewhere, AwsPeer() as peer:
        target = elsewhere.url + AwsPeer.id_path
        peer.faults[AwsPeer.id_path] = Reply(302, "", {"Location": target})
        with pytest.raises(Unavailable, match="302"):
            await class_of("aws")(peer.url).instance_id()
        assert not elsewhere.requests


async def test_a_body_beyond_the_cap_is_not_read_to_its_end() -> None:
    async with MetadataPeer() as peer:
        peer.values |= {"/small": "x" * 4096, "/large": "x" * 4097}
        client = Client(peer.url, timeout=10)
        assert (await client.get("/small")).found() == "x" * 4096
        with pytest.raises(Unavailable, match="more than 4096 bytes"):
            await client.get("/large")


async def test_no_compression_is_asked_for_or_undone() -> None:
    async with MetadataPeer() as peer:
        peer.faults["/"] = Reply(200, b"\x1f\x8b\x08\x00", {"Content-Encoding": "gzip"})
        with pytest.raises(Unavailable):
            await Client(peer.url, timeout=10).get("/")
        assert peer.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("endpoint", ["ftp://user:hunter2@host", "http://user:hunter2@127.0.0.1:1"])
async def test_an_endpoint_s_password_is_not_in_the_error(endpoint: str) -> None:
    with pytest.raises(Unavailable) as caught:
        await Client(endpoint, timeout=10).get("/x")
    assert "hunter2" not in str(caught.value)
