"""Pulls that go wrong: each fault of a registry, met through a real Docker engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import docker
import pytest

from almagent.adapters.docker_engine.pull import Transfer, verdict
from almagent.ports import PortError, Refused, Unavailable
from tests.peers.engine_world import Docker, docker_around
from tests.peers.fault_registry import Fault

IDLE = 2.0  # seconds; the default is for real networks
LARGE = 300_000  # bytes of a layer whose second half is slow or missing


@pytest.fixture
async def around(
    docker_api: docker.APIClient, stack_id: str, tmp_path: Path
) -> AsyncIterator[Docker]:
    async with docker_around(docker_api, stack_id, tmp_path) as around:
        yield around


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (Fault.MANIFEST_MISSING, Refused, "no such image"),
        (Fault.LOGIN, Refused, "refuses the login"),
        (Fault.RATE_LIMIT, Unavailable, "limits requests"),
        (Fault.SILENT, Unavailable, "2 s"),
        (Fault.BLOB_404, PortError, "cannot pull"),
        (Fault.CORRUPT, Unavailable, "verification failed"),
        (Fault.STALL, Unavailable, "2 s"),
    ],
    ids=lambda value: value.name.lower() if isinstance(value, Fault) else "",
)
async def test_a_fault_is_the_verdict_and_the_next_pull_goes_well(
    around: Docker, fault: Fault, kind: type[PortError], words: str
):
    engine = around.make(pull_idle=IDLE)
    registry = around.registry
    stale = registry.publish("app:1", payload=LARGE)
    reference = registry.reference("app:1")
    assert (await engine.pull(reference, None)).id == stale
    wanted = registry.publish("app:1", payload=LARGE)
    registry.fault = fault
    with pytest.raises(kind, match=words) as caught:
        await engine.pull(reference, None)
    assert str(caught.value).startswith(f"cannot pull {reference}: ")
    assert "\n" not in str(caught.value)
    registry.fault = Fault.NONE
    async with asyncio.timeout(30):
        assert (await engine.pull(reference, None)).id == wanted


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Fault.NONE, "ok"),
        (Fault.MANIFEST_MISSING, "refused"),
        (Fault.LOGIN, "refused"),
        (Fault.RATE_LIMIT, "failed"),
    ],
)
async def test_a_pull_is_counted_once_as_it_ended(around: Docker, fault: Fault, outcome: str):
    around.registry.publish("app:1")
    around.registry.fault = fault
    calls: list[tuple[str, str]] = []
    engine = around.make(on_call=lambda name, outcome, _seconds: calls.append((name, outcome)))
    with suppress(PortError):
        await engine.pull(around.registry.reference("app:1"), None)
    assert [called for called in calls if called[0] == "pull"] == [("pull", outcome)]
    assert {called for called in calls if called[0] != "pull"} == {("look", "ok")}


async def test_a_slow_pull_may_take_longer_than_the_idle_limit(around: Docker):
    engine, registry = around.make(pull_idle=0.7), around.registry
    registry.fault = Fault.SLOW
    wanted = registry.publish("app:1", payload=LARGE)
    seen: list[tuple[int, int]] = []
    began = time.monotonic()
    image = await engine.pull(
        registry.reference("app:1"), None, lambda _what, done, total: seen.append((done, total))
    )
    assert image.id == wanted
    assert time.monotonic() - began > 1.4
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > LARGE * 0.9


@pytest.mark.parametrize(
    "status", ["Verifying Checksum", "Download complete", "Extracting", "Pull complete"]
)
def test_a_layer_is_here_whatever_the_engine_tells_first_after_its_download(status: str):
    """It leaves out what it has not got rid of when there is something newer."""
    transfer = Transfer("app:1")
    for layer, size in (("a", 300), ("b", 11)):
        progress = {"current": size // 3, "total": size}
        transfer.take({"status": "Downloading", "id": layer, "progressDetail": progress})
    assert (transfer.done, transfer.total) == (103, 311)
    for layer in ("a", "b", "c"):  # of c nothing was told
        transfer.take({"status": status, "id": layer, "progressDetail": {"current": 1, "total": 9}})
    assert (transfer.done, transfer.total) == (311, 311)


@pytest.mark.parametrize(("header", "wait"), [("17", 17.0), (None, 60.0)])
async def test_the_wait_that_a_limiting_registry_asks_for_is_handed_on(
    around: Docker, header: str | None, wait: float
):
    around.registry.publish("app:1")
    around.registry.fault = Fault.RATE_LIMIT
    around.registry.retry_after = header
    with pytest.raises(Unavailable) as caught:
        await around.make().pull(around.registry.reference("app:1"), None)
    assert caught.value.retry_after == wait


async def test_cancelling_ends_the_pull_in_the_engine(around: Docker):
    registry = around.registry
    registry.publish("app:1", payload=LARGE)
    registry.fault = Fault.STALL
    reference = registry.reference("app:1")
    calls: list[str] = []
    engine = around.make(on_call=lambda name, _outcome, _seconds: calls.append(name))
    pull = asyncio.create_task(engine.pull(reference, None))
    async with asyncio.timeout(10):
        while not any("/blobs/" in path for _, path, _ in registry.requests):
            await asyncio.sleep(0.02)
    pull.cancel()
    began = time.monotonic()
    await asyncio.wait([pull])
    assert time.monotonic() - began < 0.5
    assert pull.cancelled()
    assert "pull" not in calls
    registry.fault = Fault.NONE
    with pytest.raises(docker.errors.ImageNotFound):
        around.api.inspect_image(reference)


async def test_an_engine_that_goes_away_in_the_middle_is_unavailable(around: Docker):
    engine, registry = around.make(), around.registry
    wanted = registry.publish("app:1", payload=LARGE)
    registry.fault = Fault.STALL
    pull = asyncio.create_task(engine.pull(registry.reference("app:1"), None))
    await asyncio.sleep(0.5)
    await around.door.cut()
    with pytest.raises(Unavailable, match="cannot pull"):
        await pull
    registry.fault = Fault.NONE
    assert (await engine.pull(registry.reference("app:1"), None)).id == wanted


async def test_a_digest_is_pulled_once_and_then_needs_no_registry(around: Docker):
    engine, registry = around.make(), around.registry
    wanted = registry.publish("app:1")
    digest = registry.digest_of("app:1")
    reference = f"{registry.address}/app:1@{digest}"
    image = await engine.pull(reference, None)
    assert (image.id, image.digest) == (wanted, digest)
    asked = len(registry.requests)
    assert await engine.pull(reference, None) == image
    assert len(registry.requests) == asked


async def test_an_image_that_was_here_before_is_not_ours_to_collect(around: Docker):
    registry = around.registry
    foreign = registry.publish("app:1")
    reference = registry.reference("app:1")
    for _line in around.api.pull(reference, stream=True, decode=True):
        pass
    engine = around.make(keep_images=0)
    assert (await engine.pull(reference, None)).id == foreign
    ours = registry.publish("app:2")
    await engine.pull(registry.reference("app:2"), None)
    await engine.collect([])
    left = {image["Id"] for image in around.api.images()}
    assert foreign in left
    assert ours not in left


async def test_what_was_pulled_is_remembered_over_a_restart(around: Docker):
    ids = [around.registry.publish(f"app:{n}") for n in range(3)]
    for n in range(3):
        await around.make().pull(around.registry.reference(f"app:{n}"), None)
    await around.make(keep_images=1).collect([])
    assert [i["Id"] for i in around.api.images() if i["Id"] in ids] == ids[2:]


async def test_an_image_that_somebody_named_too_is_left_to_them(around: Docker):
    reference = around.registry.reference("app:1")
    image_id = around.registry.publish("app:1")
    engine = around.make(keep_images=0)
    await engine.pull(reference, None)
    around.api.tag(image_id, f"{around.registry.address}/theirs", "1")
    await engine.collect([])
    assert around.api.inspect_image(image_id)["Id"] == image_id


@pytest.mark.parametrize(
    ("text", "kind", "wait"),
    [
        ("toomanyrequests: You have reached your pull rate limit.", Unavailable, 60.0),
        ("toomanyrequests: retry-after: 250ms, allowed: 100/minute", Unavailable, 0.25),
        ("write /var/lib/docker/tmp/x: no space left on device", Refused, None),
        ("Get https://r.io/v2/: no basic auth credentials", Refused, None),
        ("pull access denied for a, repository does not exist", Refused, None),
        ("manifest for a:1 not found: manifest unknown", Refused, None),
        ("no matching manifest for linux/amd64 in the manifest list entries", Refused, None),
        ("Get https://r.io/v2/: dial tcp: connection refused", Unavailable, None),
        ("net/http: TLS handshake timeout", Unavailable, None),
        ("unexpected EOF\nwith a second line\x1b[31m", Unavailable, None),
    ],
)
def test_the_engines_words_are_sorted(text: str, kind: type[PortError], wait: float | None):
    error = verdict("a:1", text)
    assert isinstance(error, kind)
    assert error.retry_after == wait
    assert str(error).startswith("cannot pull a:1: ")
    assert str(error).isprintable()
