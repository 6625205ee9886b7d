"""The Metadata port over all clouds: what each path may answer, and what follows from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import pytest

from almagent.adapters.metadata import Cloud, class_of
from almagent.clouds import CLOUDS
from almagent.ports import Notice, Unavailable
from tests.peers.metadata import (
    HTML,
    AlicloudPeer,
    AwsPeer,
    AzurePeer,
    Fault,
    GcpPeer,
    MetadataPeer,
    OpenStackPeer,
    Reply,
    TencentPeer,
)

SOON = 1767636120.0  # 2026-01-05T18:02:00Z
PATIENT = 10.0  # seconds; answers come at once
SHORT = 0.3  # seconds, where the answer is not to come


@dataclass(frozen=True)
class Watched:
    cloud: str
    peer: Callable[[], MetadataPeer]
    path: str
    valid: str  # text of a notice
    notice: Notice
    unknown: str  # well-formed, but with a word that is not documented
    timed: bool = True  # False: the deadline is counted from the first sight

    def __str__(self) -> str:
        return f"{self.cloud} {self.path.rpartition('/')[2]}"


def azure_events(kind: str) -> str:
    return AzurePeer.document(AzurePeer.event(kind))


def aws_event(**fields: str) -> dict[str, str]:
    return {
        "NotBefore": "21 Jan 2019 09:00:43 GMT",
        "Code": "system-reboot",
        "Description": "scheduled reboot",
        "EventId": "instance-event-0d59937288b749b32",
        "NotAfter": "21 Jan 2019 09:17:23 GMT",
        "State": "active",
        **fields,
    }


AZURE_KEY = "azure/602d9444-d2cd-49c7-8624-8643e7171297"
WATCHED = [
    *[
        Watched(
            "aws",
            AwsPeer,
            AwsPeer.spot,
            f'{{"action": "{action}", "time": "2026-01-05T18:02:00Z"}}',
            Notice("aws/spot", True, f"{action} at 2026-01-05T18:02:00Z", SOON),
            '{"action": "explode", "time": "2026-01-05T18:02:00Z"}',
        )
        for action in ("terminate", "stop", "hibernate")
    ],
    Watched(
        "aws",
        AwsPeer,
        AwsPeer.rebalance,
        '{"noticeTime": "2026-01-05T18:02:00Z"}',
        Notice("aws/rebalance", False, "rebalance recommended at 2026-01-05T18:02:00Z", SOON),
        '{"noticeTime": "soon"}',
    ),
    Watched(
        "aws",
        AwsPeer,
        AwsPeer.maintenance,
        json.dumps([aws_event()]),
        Notice(
            "aws/maintenance/instance-event-0d59937288b749b32",
            False,
            "system-reboot at 2019-01-21T09:00:43Z",
            1548061243.0,
        ),
        json.dumps([aws_event(Code="explode")]),
    ),
    Watched(
        "aws",
        AwsPeer,
        AwsPeer.autoscaling,
        "Terminated",
        Notice("aws/autoscaling", True, "terminate at a time not told, by its Auto Scaling group"),
        "Exploding",
    ),
    Watched(
        "gcp",
        GcpPeer,
        GcpPeer.preempted,
        "TRUE",
        Notice("gcp/preempted", True, "preempt at "),
        "MAYBE",
        timed=False,
    ),
    Watched(
        "gcp",
        GcpPeer,
        GcpPeer.maintenance,
        "TERMINATE_ON_HOST_MAINTENANCE",
        Notice("gcp/maintenance/terminate", True, "terminate at "),
        "EXPLODE_ON_HOST_MAINTENANCE",
        timed=False,
    ),
    Watched(
        "gcp",
        GcpPeer,
        GcpPeer.maintenance,
        "MIGRATE_ON_HOST_MAINTENANCE",
        Notice("gcp/maintenance/migrate", False, "live migration at "),
        "<b>MIGRATE_ON_HOST_MAINTENANCE</b>",
        timed=False,
    ),
    *[
        Watched(
            "azure",
            AzurePeer,
            AzurePeer.events,
            azure_events(kind),
            Notice(AZURE_KEY, terminal, f"{kind.lower()} at 2026-01-05T18:02:00Z", SOON),
            azure_events("Explode"),
        )
        for kind, terminal in [
            ("Preempt", True),
            ("Terminate", True),
            ("Reboot", False),
            ("Redeploy", False),
            ("Freeze", False),
        ]
    ],
    Watched(
        "alicloud",
        AlicloudPeer,
        AlicloudPeer.spot,
        "2026-01-05T18:02:00Z",
        Notice("alicloud/spot", True, "terminate at 2026-01-05T18:02:00Z", SOON),
        "2026-01-05 18:02:00",
    ),
    Watched(
        "tencent",
        TencentPeer,
        TencentPeer.spot,
        "2026-01-06 02:02:00",
        Notice("tencent/spot", True, "terminate at 2026-01-05T18:02:00Z", SOON),
        "2026-01-06T02:02:00Z",
    ),
]
ONE_PER_PATH = list({watched.path: watched for watched in WATCHED}.values())
PEERS: dict[str, Callable[[], MetadataPeer]] = {
    "aws": AwsPeer,
    "gcp": GcpPeer,
    "azure": AzurePeer,
    "alicloud": AlicloudPeer,
    "tencent": TencentPeer,
    "k5": OpenStackPeer,
}

GOOGLE = b"Metadata-Flavor: Google\r\n"
CUT = {
    "404 cut in a header": b"HTTP/1.1 404 Not Found\r\n" + GOOGLE + b"Content-Le",
    "404 cut after a header": b"HTTP/1.1 404 Not Found\r\n" + GOOGLE,
    "404 cut in its body": b"HTTP/1.1 404 Not Found\r\n" + GOOGLE + b"Content-Length: 9\r\n\r\nNot",
    "404 with a head that is none": b"HTTP/1.1 404 Not Found\r\n" + GOOGLE + b"<p>\r\nX: y\r\n\r\n",
    **{
        f"404 of {text[:20].decode()} {len(text)}": b"HTTP/1.1 404 Not Found\r\n"
        + GOOGLE
        + text
        + b"\r\n\r\n"
        for text in (
            b"Content-Length: 1000000000000000",
            b"Content-Length: 9" + b"9" * 30,
            b"Content-Length: 9" + b"9" * 5000,
            b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 20,
        )
    },
}
UNCLEAR: dict[str, Reply | Fault | bytes] = {
    **CUT,
    "200 cut JSON": Reply(200, '{"action": "termin', {"Metadata-Flavor": "Google"}),
    "200 JSON of another shape": Reply(200, '["terminate"]', {"Metadata-Flavor": "Google"}),
    "200 deep JSON": Reply(200, "[" * 4000, {"Metadata-Flavor": "Google"}),
    "200 HTML": Reply(200, HTML, {"Content-Type": "text/html", "Metadata-Flavor": "Google"}),
    "200 not text": Reply(200, b"\xff\xfe\x00", {"Metadata-Flavor": "Google"}),
    "200 endless": Reply(200, "9" * 200_000, {"Metadata-Flavor": "Google"}),
    **{
        str(status): Reply(status, HTML, {"Location": "/", "Metadata-Flavor": "Google"})
        for status in (204, 301, 302, 307, 400, 401, 403, 405, 429, 500, 502, 503)
    },
    **{fault.name.lower(): fault for fault in Fault},
}
QUICK = {name: fault for name, fault in UNCLEAR.items() if name not in {"stall", "drip"}}


def make(cloud: str, peer: MetadataPeer, fault: object = None) -> Cloud:
    """Times are short only where the answer is not to come, so that a busy machine fails no test."""
    timeout = SHORT if fault in (Fault.STALL, Fault.DRIP) else PATIENT
    return class_of(cloud)(peer.url, timeout=timeout)


def test_no_cloud_is_left_out() -> None:
    assert PEERS.keys() == CLOUDS.keys()


@pytest.mark.parametrize("watched", WATCHED, ids=str)
async def test_a_documented_notice_is_a_notice(watched: Watched) -> None:
    async with watched.peer() as peer:
        peer.values[watched.path] = watched.valid
        (notice,) = await make(watched.cloud, peer).notices()
    if watched.timed:
        assert notice == watched.notice
    else:
        assert (notice.key, notice.terminal) == (watched.notice.key, watched.notice.terminal)
        assert notice.what.startswith(watched.notice.what)
        assert notice.deadline is not None


@pytest.mark.parametrize("watched", ONE_PER_PATH, ids=str)
async def test_not_found_is_no_notice(watched: Watched) -> None:
    async with watched.peer() as peer:
        peer.values.pop(watched.path, None)
        assert await make(watched.cloud, peer).notices() == ()


@pytest.mark.parametrize("cloud", PEERS)
async def test_nothing_announced_is_no_notice(cloud: str) -> None:
    async with PEERS[cloud]() as peer:
        assert await make(cloud, peer).notices() == ()


@pytest.mark.parametrize(
    ("watched", "fault"),
    [
        pytest.param(watched, fault, id=f"{watched} {fault}")
        for watched, fault in product(ONE_PER_PATH, UNCLEAR)
    ],
)
async def test_anything_else_is_unknown_and_passes(watched: Watched, fault: str) -> None:
    async with watched.peer() as peer:
        adapter = make(watched.cloud, peer, UNCLEAR[fault])
        peer.faults[watched.path] = UNCLEAR[fault]
        with pytest.raises(Unavailable, match=r"\Acannot [^\n]+\Z"):
            await adapter.notices()
        del peer.faults[watched.path]
        peer.values[watched.path] = watched.valid
        (notice,) = await adapter.notices()
        assert notice.key == watched.notice.key


@pytest.mark.parametrize("watched", WATCHED, ids=str)
async def test_an_undocumented_word_is_unknown(watched: Watched) -> None:
    async with watched.peer() as peer:
        peer.values[watched.path] = watched.unknown
        with pytest.raises(Unavailable, match="cannot understand"):
            await make(watched.cloud, peer).notices()


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure", "alicloud", "tencent"])
async def test_a_refused_connection_is_unknown(cloud: str) -> None:
    async with PEERS[cloud]() as peer:
        adapter = make(cloud, peer)
        await adapter.notices()
        await peer.stop()
        with pytest.raises(Unavailable):
            await adapter.notices()


@pytest.mark.parametrize("cloud", PEERS)
async def test_the_instance_id_is_told(cloud: str) -> None:
    async with PEERS[cloud]() as peer:
        assert await make(cloud, peer).instance_id() == type(peer).instance_id  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("cloud", "fault"),
    [pytest.param(*case, id=" ".join(case)) for case in product(PEERS, [*QUICK, "404"])],
)
async def test_no_other_answer_is_taken_for_an_instance_id(cloud: str, fault: str) -> None:
    async with PEERS[cloud]() as peer:
        answer = QUICK.get(fault, Reply(404, HTML))
        peer.faults[type(peer).id_path] = answer  # type: ignore[attr-defined]
        with pytest.raises(Unavailable, match=r"\Acannot [^\n]+\Z"):
            await make(cloud, peer).instance_id()
