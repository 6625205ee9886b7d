"""An engine that is not there yet, hangs, crashes or has a full disk. Each has an engine of its own."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from almagent.adapters.docker_engine.door import EngineDoor
from almagent.adapters.docker_engine.events import watch
from almagent.adapters.docker_engine.labels import Owner
from almagent.adapters.engine import DockerEngine
from almagent.core.model import Spec
from almagent.ports import Refused, Unavailable
from tests.peers.dockerd import PrivateEngine, private_engine
from tests.peers.engine_world import (
    MIB,
    What,
    docker_engine,
    has_ended,
    is_running,
    publish,
    release,
    until,
)
from tests.peers.fault_registry import Fault, FaultRegistry, fault_registry
from tests.peers.netns import HERE, listening

LARGE = 300_000  # bytes


@dataclass
class Own:
    private: PrivateEngine
    registry: FaultRegistry  # on the engine's loopback

    def make(self, state_dir: Path, stack_id: str, **changes: Any) -> DockerEngine:
        return docker_engine(state_dir, self.private.host, stack_id, **changes)

    def image_ids(self) -> set[str]:
        api: Any = self.private.client()
        with closing(api):
            return {image["Id"] for image in api.images()}


@contextmanager
def own_engine(size: str = "") -> Iterator[Own]:
    root = Path(tempfile.mkdtemp(prefix="almagent-test-"))  # a socket's path has to be short
    with (
        private_engine(root, size) as private,
        fault_registry(lambda: listening(private.machine.path, "127.0.0.1", 0)) as registry,
    ):
        yield Own(private, registry)


@pytest.fixture(scope="module")
def spacious() -> Iterator[Own]:
    with own_engine() as own:
        yield own


@pytest.fixture(scope="module")
def cramped() -> Iterator[Own]:
    with own_engine("200m") as own:
        yield own


async def stopped(engine: DockerEngine) -> float:
    """Seconds until the engine is said to be unavailable."""
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await engine.observe()
    return time.monotonic() - began


async def test_docker_may_come_after_the_agent(tmp_path: Path, stack_id: str):
    engine = docker_engine(tmp_path, f"unix://{tmp_path}/docker.sock", stack_id)
    for call in (engine.observe(), engine.pull("a:1", None), engine.collect([])):
        with pytest.raises(Unavailable, match="cannot reach the Docker engine: No such file"):
            await call
    async with aclosing(engine.changes()) as changes:  # type: ignore[type-var]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(changes), 1.5)
    engine.close()


async def test_an_engine_that_says_rubbish_is_unavailable(tmp_path: Path, stack_id: str):
    async def rubbish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<htm>")
        writer.close()

    path = tmp_path / "docker.sock"
    server = await asyncio.start_unix_server(rubbish, path)
    engine = docker_engine(tmp_path, f"unix://{path}", stack_id)
    assert await stopped(engine) < 1
    server.close()
    engine.close()


async def test_a_frozen_engine_is_unavailable_within_the_deadline_and_then_met_again(
    spacious: Own, tmp_path: Path, stack_id: str
):
    engine = spacious.make(tmp_path, stack_id, deadline=2.0)
    await engine.observe()
    spacious.private.freeze()
    try:
        assert 1.9 < await stopped(engine) < 3
    finally:
        spacious.private.thaw()
    assert await engine.observe() == ()
    engine.close()


async def test_a_container_is_found_again_after_the_engine_crashed(
    spacious: Own, tmp_path: Path, stack_id: str
):
    engine = spacious.make(tmp_path, stack_id)
    reference = publish(spacious.registry, "app:1", What(ports=()))
    image = await engine.pull(reference, None)
    wanted = release(image.id, reference, ports=())
    container_id = await engine.create(Spec("r", reference), wanted, publish=False)
    await engine.start(container_id)
    await engine.set_restart(container_id, always=True)
    before = await until(engine, is_running, container_id)
    async with aclosing(engine.changes()) as changes:  # type: ignore[type-var]
        assert await anext(changes) == ""
        spacious.private.kill()
        assert await stopped(engine) < 1
        spacious.private.start()
        async with asyncio.timeout(10):
            assert await anext(changes) == ""
    after = await until(engine, is_running, container_id, patience=20)
    assert after.address == before.address
    await engine.terminate(container_id)
    await until(engine, has_ended, container_id)
    await engine.remove(container_id)
    engine.close()


async def test_an_engine_that_has_nothing_to_tell_is_not_lost(spacious: Own, stack_id: str):
    door = EngineDoor(spacious.private.host)
    with capture_logs() as logs:
        async with aclosing(watch(door, Owner(stack_id, "Web01"), idle=0.2)) as changes:  # type: ignore[type-var]
            async with asyncio.timeout(10):
                assert [await anext(changes) for _ in range(2)] == ["", ""]
    assert logs == []
    door.close()


async def test_a_layer_that_does_not_come_is_never_the_stale_image(
    spacious: Own, tmp_path: Path, stack_id: str
):
    """With its default settings an engine tries for more than a minute; this one gives up earlier."""
    engine, registry = spacious.make(tmp_path, stack_id), spacious.registry
    faults = {"cut": Fault.CUT, "broken": Fault.BLOB_500}
    for name in faults:
        registry.publish(f"{name}:1", payload=LARGE)
        await engine.pull(registry.reference(f"{name}:1"), None)
    wanted = {name: registry.publish(f"{name}:1", payload=LARGE) for name in faults}
    registry.faults = faults
    pulls = [engine.pull(registry.reference(f"{name}:1"), None) for name in faults]
    for error in await asyncio.gather(*pulls, return_exceptions=True):
        assert isinstance(error, Unavailable)
        assert str(error).startswith("cannot pull ")
    registry.faults = {}
    for name in faults:
        assert (await engine.pull(registry.reference(f"{name}:1"), None)).id == wanted[name]
    engine.close()


async def test_a_disk_below_the_floor_refuses_the_pull_with_both_figures(
    cramped: Own, tmp_path: Path, stack_id: str
):
    engine = cramped.make(tmp_path, stack_id, min_free_bytes=1024 * MIB)
    cramped.registry.publish("app:1")
    with pytest.raises(Refused, match=r"needs 1024 MiB of free disk, (1\d\d|200) MiB are free"):
        await engine.pull(cramped.registry.reference("app:1"), None)
    assert cramped.registry.requests == []
    engine.close()


async def test_an_image_that_does_not_fit_is_refused_and_then_comes(
    cramped: Own, tmp_path: Path, stack_id: str
):
    """The registry is asked over the loopback of this host, the engine would pull over its own."""
    registry = cramped.registry
    port = int(registry.address.partition(":")[2])
    with fault_registry(lambda: listening(HERE, "127.0.0.1", port)) as mirror:
        mirror.manifests, mirror.blobs = registry.manifests, registry.blobs
        engine = cramped.make(tmp_path, stack_id, min_free_bytes=20 * MIB)
        reference = registry.reference("large:1")
        registry.publish("large:1", claimed_size=100 * MIB)
        with pytest.raises(Refused, match=r"needs 320 MiB of free disk, (1\d\d|200) MiB are free"):
            await engine.pull(reference, None)
        assert registry.requests == []
        wanted = registry.publish("large:1")
        assert (await engine.pull(reference, None)).id == wanted
        engine.close()


async def test_old_images_make_room_before_a_pull_is_refused(
    cramped: Own, tmp_path: Path, stack_id: str
):
    engine = cramped.make(tmp_path, stack_id, min_free_bytes=170 * MIB, keep_images=9)
    pulled = []
    for n in range(4):
        cramped.registry.publish(f"app:{n}", payload=10 * MIB)
        pulled.append((await engine.pull(cramped.registry.reference(f"app:{n}"), None)).id)
    left = cramped.image_ids() & set(pulled)
    assert pulled[-1] in left
    assert len(left) < 4
    engine.close()


async def test_many_releases_leave_a_bounded_number_of_images(
    spacious: Own, tmp_path: Path, stack_id: str
):
    engine = spacious.make(tmp_path, stack_id, keep_images=2)
    before = spacious.image_ids()
    for _ in range(10):
        spacious.registry.publish("app:1", payload=1024)
        image = await engine.pull(spacious.registry.reference("app:1"), None)
        await engine.collect([image.id])
    assert before <= spacious.image_ids()
    assert len(spacious.image_ids()) == len(before) + 3
    engine.close()
