"""Metadata services of the clouds on loopback, built from the answers their documentation shows.

`async with AwsPeer() as peer:` listens on `peer.url`. `values` maps a path to the text it answers with
(absent: 404), `faults` maps a path to an answer or a misbehaviour that overrides everything.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from hashlib import sha256
from socket import SO_LINGER, SOL_SOCKET
from time import monotonic
from typing import Self
from urllib.parse import parse_qs

HTML = "<!DOCTYPE html><html><body>Please log in</body></html>"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: str | bytes = ""
    headers: dict[str, str] = field(default_factory=dict)


class Fault(Enum):
    STALL = "accepts, reads, never answers"
    RESET = "resets the connection"
    DRIP = "one byte of an endless body at a time"


def utc(seconds: float) -> str:
    """The time so many seconds from now, as AWS and Alibaba Cloud write it."""
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


class MetadataPeer:
    """A service without anything in it: 404 everywhere."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.faults: dict[str, Reply | Fault | bytes] = {}  # bytes: just these, and then the end
        self.requests: list[Request] = []
        self.changed = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def count(self, method: str = "GET") -> Counter[str]:
        return Counter(request.path for request in self.requests if request.method == method)

    async def put(self, path: str, text: str | None) -> None:
        """Change a value and wake who waits for a change; None removes it."""
        async with self.changed:
            if text is None:
                self.values.pop(path, None)
            else:
                self.values[path] = text
            self.changed.notify_all()

    async def respond(self, request: Request) -> Reply:
        return self.lookup(request.path)

    def lookup(self, path: str) -> Reply:
        if path in self.values:
            return Reply(200, self.values[path], {"Content-Type": "text/plain"})
        return Reply(404, HTML, {"Content-Type": "text/html"})

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """From now on connections are refused."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = _parse((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"))
        self.requests.append(request)
        answer = self.faults.get(request.path) or await self.respond(request)
        if isinstance(answer, Fault):
            await _misbehave(answer, reader, writer)
        else:
            writer.write(answer if isinstance(answer, bytes) else _encode(answer))
            await writer.drain()
            writer.close()
            await writer.wait_closed()


def _parse(head: str) -> Request:
    first, *lines = head.split("\r\n")
    method, target, _version = first.split(" ")
    path, _, query = target.partition("?")
    headers = dict(line.split(": ", 1) for line in lines if line)
    return Request(
        method,
        path,
        {name: values[0] for name, values in parse_qs(query).items()},
        {name.lower(): value for name, value in headers.items()},
    )


def _encode(reply: Reply) -> bytes:
    body = reply.body.encode() if isinstance(reply.body, str) else reply.body
    headers = {"Connection": "close", **reply.headers}
    if reply.status != 204:
        headers["Content-Length"] = str(len(body))
    lines = [f"HTTP/1.1 {reply.status} Some Reason"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if reply.status == 204 else body)


async def _misbehave(
    fault: Fault, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    if fault is Fault.RESET:
        linger = struct.pack("ii", 1, 0)  # close sends RST
        writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, linger)
        return
    if fault is Fault.DRIP:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not reader.at_eof():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)
    await reader.read()  # until the client gives up


class CaptivePortal(MetadataPeer):
    """The login page of a network, for every question: itself, or where to find it."""

    def __init__(self, status: int = 200) -> None:
        super().__init__()
        self.status = status

    async def respond(self, request: Request) -> Reply:
        return Reply(
            self.status,
            HTML,
            {"Content-Type": "text/html", "Location": f"{self.url}/login", "ETag": "1"},
        )


class TokenPeer(MetadataPeer):
    """The token protocol that AWS and Alibaba Cloud share.

    `v1`: requests without a token are answered; `v2`: tokens are given. `life`: the most seconds a
    token is given, by `now`.
    """

    header = ""
    token_path = "/latest/api/token"

    def __init__(
        self,
        *,
        v1: bool = True,
        v2: bool = True,
        life: int = 21600,
        now: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__()
        self.v1 = v1
        self.v2 = v2
        self.life = life
        self.now = now
        self.tokens: dict[str, float] = {}
        self.given = 0

    def revoke(self) -> None:
        """As a restart of the service does."""
        self.tokens.clear()

    async def respond(self, request: Request) -> Reply:
        if request.path == self.token_path:
            return self._give(request) if self.v2 else Reply(404, HTML)
        token = request.headers.get(self.header)
        if token is None:
            return self.lookup(request.path) if self.v1 else Reply(401, HTML)
        if self.tokens.get(token, 0.0) <= self.now():
            return Reply(401, HTML)
        return self.lookup(request.path)

    def _give(self, request: Request) -> Reply:
        wanted = request.headers.get(f"{self.header}-ttl-seconds", "")
        if request.method != "PUT":
            return Reply(405, HTML)
        if not wanted.isdecimal() or not 1 <= int(wanted) <= 21600:
            return Reply(400, HTML)
        self.given += 1
        life = min(int(wanted), self.life)
        token = f"AQAE{sha256(str(self.given).encode()).hexdigest()}=="
        self.tokens[token] = self.now() + life
        return Reply(200, token, {f"{self.header}-ttl-seconds": str(life)})


class AwsPeer(TokenPeer):
    header = "x-aws-ec2-metadata-token"
    id_path = "/latest/meta-data/instance-id"
    instance_id = "i-1234567890abcdef0"
    spot = "/latest/meta-data/spot/instance-action"
    rebalance = "/latest/meta-data/events/recommendations/rebalance"
    maintenance = "/latest/meta-data/events/maintenance/scheduled"
    autoscaling = "/latest/meta-data/autoscaling/target-lifecycle-state"

    def __init__(
        self,
        *,
        v1: bool = True,
        v2: bool = True,
        life: int = 21600,
        now: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__(v1=v1, v2=v2, life=life, now=now)
        self.values = {
            self.id_path: self.instance_id,
            self.maintenance: "[]",
            self.autoscaling: "InService",
        }

    @staticmethod
    def notice(seconds: float, action: str = "terminate") -> str:
        """What `spot` says when `action` comes in so many seconds."""
        return json.dumps({"action": action, "time": utc(seconds)})


class AlicloudPeer(TokenPeer):
    header = "x-aliyun-ecs-metadata-token"
    id_path = "/latest/meta-data/instance-id"
    instance_id = "i-2zeewhay0farxq8lucrc"
    spot = "/latest/meta-data/instance/spot/termination-time"

    def __init__(self, *, v1: bool = True, v2: bool = True) -> None:
        super().__init__(v1=v1, v2=v2)
        self.values = {self.id_path: self.instance_id}


class TencentPeer(MetadataPeer):
    id_path = "/latest/meta-data/instance-id"
    instance_id = "ins-3g445roi"
    spot = "/latest/meta-data/spot/termination-time"

    def __init__(self) -> None:
        super().__init__()
        self.values = {self.id_path: self.instance_id}

    @staticmethod
    def notice(seconds: float) -> str:
        """What `spot` says when the instance is reclaimed in so many seconds."""
        at = datetime.now(timezone(timedelta(hours=8))) + timedelta(seconds=seconds)
        return at.strftime("%Y-%m-%d %H:%M:%S")


class GcpPeer(MetadataPeer):
    """Holds an answer back when it is asked to wait for a change (`holds`), as the service does."""

    id_path = "/computeMetadata/v1/instance/id"
    instance_id = "4567890123456789012"
    preempted = "/computeMetadata/v1/instance/preempted"
    maintenance = "/computeMetadata/v1/instance/maintenance-event"

    def __init__(self, *, holds: bool = True) -> None:
        super().__init__()
        self.holds = holds
        self.waiting = 0
        self.values = {
            self.id_path: self.instance_id,
            self.preempted: "FALSE",
            self.maintenance: "NONE",
        }

    async def respond(self, request: Request) -> Reply:
        if request.headers.get("metadata-flavor") != "Google":
            return Reply(403, HTML)
        if request.query.get("wait_for_change") == "true" and self.holds:
            await self._hold(request)
        reply = self.lookup(request.path)
        return Reply(
            reply.status,
            reply.body,
            {"Metadata-Flavor": "Google", "ETag": self._etag(request.path)},
        )

    async def _hold(self, request: Request) -> None:
        self.waiting += 1
        try:
            async with asyncio.timeout(float(request.query["timeout_sec"])), self.changed:
                await self.changed.wait_for(
                    lambda: self._etag(request.path) != request.query["last_etag"]
                )
        except TimeoutError:
            pass
        finally:
            self.waiting -= 1

    def _etag(self, path: str) -> str:
        return sha256(self.values.get(path, "").encode()).hexdigest()[:16]


class AzurePeer(MetadataPeer):
    id_path = "/metadata/instance/compute/vmId"
    instance_id = "5c08b38e-4d57-4c23-ac45-aca61037f084"
    name_path = "/metadata/instance/compute/name"
    vm_name = "WestNO_0"
    events = "/metadata/scheduledevents"

    def __init__(self) -> None:
        super().__init__()
        self.values = {
            self.id_path: self.instance_id,
            self.name_path: self.vm_name,
            self.events: self.document(),
        }

    @staticmethod
    def document(*events: dict[str, object]) -> str:
        return json.dumps({"DocumentIncarnation": len(events) + 1, "Events": events})

    @classmethod
    def event(cls, kind: str, **fields: object) -> dict[str, object]:
        return {
            "EventId": "602d9444-d2cd-49c7-8624-8643e7171297",
            "EventType": kind,
            "ResourceType": "VirtualMachine",
            "Resources": [cls.vm_name],
            "EventStatus": "Scheduled",
            "NotBefore": "Mon, 05 Jan 2026 18:02:00 GMT",
            "Description": "Virtual machine is being paused",
            "EventSource": "Platform",
            "DurationInSeconds": 9,
            **fields,
        }

    async def respond(self, request: Request) -> Reply:
        if request.headers.get("metadata") != "true" or "api-version" not in request.query:
            return Reply(400, '{ "error": "Bad request" }')
        return self.lookup(request.path)


class OpenStackPeer(MetadataPeer):
    """With the copy of EC2's first version that Nova serves beside its own document."""

    id_path = "/openstack/latest/meta_data.json"
    instance_id = "83679162-1378-4288-a2d4-70e13ec132aa"

    def __init__(self) -> None:
        super().__init__()
        self.values = {
            self.id_path: json.dumps(
                {
                    "uuid": self.instance_id,
                    "name": "test",
                    "hostname": "test.novalocal",
                    "keys": [{"data": "ssh-rsa AAAA" + "B" * 6000, "type": "ssh", "name": "k"}],
                    "random_seed": "yu5ZnkqF2CqnDZVAfZgarG",
                }
            ),
            "/latest/meta-data/instance-id": "i-0000abcd",
        }
