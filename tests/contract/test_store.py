"""What every Store promises, over the file and over its fake, and what only files can suffer."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from almagent.adapters.store import SET_ASIDE_LIMIT, FileStore, Lock, agent_id
from almagent.ports import Refused, Store, Unavailable
from tests.fakes.store import Disk, MemoryStore
from tests.peers.files import no_more_files

STATE: dict[str, object] = {
    "outbox": {"entries": []},
    "text": "á\udc80\n",
    "n": [1, 2.5, None, True],
}


@contextmanager
def tmpfs(path: Path, options: str) -> Iterator[Path]:
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def fill(directory: Path) -> Path:
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1024)):
                pass
        except OSError:
            return ballast
    raise AssertionError("a tmpfs without an end")


@dataclass
class Site:
    make: Callable[[], Store]  # a store, as after a restart
    refuse: Callable[[], None]
    relent: Callable[[], None]


@pytest.fixture(params=["file", "memory"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    if request.param == "memory":
        disk = Disk()
        yield Site(
            lambda: MemoryStore(disk),
            lambda: setattr(disk, "refuses", True),
            lambda: setattr(disk, "refuses", False),
        )
        return
    with tmpfs(tmp_path / "disk", "size=64k") as directory:
        ballast = directory / "ballast"
        yield Site(
            lambda: FileStore(directory / "state.json"),
            lambda: ignore(fill(directory)),
            ballast.unlink,
        )


def ignore(_value: object) -> None:
    pass


# --- the promise ---------------------------------------------------------------------------------


def test_what_is_saved_is_loaded_after_a_restart(site: Site):
    assert site.make().load() == {}
    store = site.make()
    assert store.save(STATE)
    assert store.save({**STATE, "more": 1})
    assert site.make().load() == {**STATE, "more": 1}


def test_a_disk_that_refuses_keeps_the_old_state_and_the_next_save_recovers(site: Site):
    store = site.make()
    assert store.save(STATE)
    site.refuse()
    assert not store.save({"new": "x" * 10_000})
    assert site.make().load() == STATE
    site.relent()
    assert store.save({"new": 1})
    assert site.make().load() == {"new": 1}


def test_state_that_is_no_json_is_a_mistake_of_ours(site: Site):
    with pytest.raises(TypeError):
        site.make().save({"secret": object()})


# --- files ---------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "state.json"


def test_the_file_is_private_and_versioned(path: Path):
    umask = os.umask(0)
    try:
        assert FileStore(path).save(STATE)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert json.loads(path.read_bytes())["version"] == 1
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"version": 1, "outbox": {"ent', id="truncated"),
        pytest.param(os.urandom(4096), id="garbage"),
        pytest.param(bytes(4096), id="zeros"),
        pytest.param(b"[" * 100_000, id="deep nesting"),
        pytest.param(b"[1]", id="a list"),
        pytest.param(b"{}", id="no version"),
        pytest.param(b'{"version": "1"}', id="version as text"),
        pytest.param(b'{"version": true}', id="version true"),
        pytest.param(b'{"version": 0}', id="version 0"),
        pytest.param(b'{"version": 99999999}', id="absurd version"),
    ],
)
def test_a_damaged_file_is_set_aside(path: Path, content: bytes):
    path.parent.mkdir()
    path.write_bytes(content)
    store = FileStore(path)
    assert store.load() == {}
    assert store.save(STATE)
    assert FileStore(path).load() == STATE
    assert path.with_name("state.json.corrupt-1").read_bytes() == content


def test_what_is_set_aside_is_bounded(path: Path):
    path.parent.mkdir()
    for n in range(3 * SET_ASIDE_LIMIT):
        path.write_text(f"damage {n}")
        os.utime(path, (n, n))
        FileStore(path).load()
    kept = {file.read_text() for file in path.parent.iterdir()}
    assert kept == {f"damage {n}" for n in range(2 * SET_ASIDE_LIMIT, 3 * SET_ASIDE_LIMIT)}


def test_a_newer_format_is_kept_for_the_newer_agent(path: Path):
    path.parent.mkdir()
    path.write_text('{"version": 2, "treasure": 1}')
    store = FileStore(path)
    assert store.load() == {}
    assert store.save(STATE)
    path.write_text('{"version": 2, "treasure": 2}')
    assert FileStore(path).load() == {}
    assert path.with_name("state.json.v2").read_text() == '{"version": 2, "treasure": 1}'
    assert path.with_name("state.json.v2-2").read_text() == '{"version": 2, "treasure": 2}'


def test_a_newer_format_survives_a_disk_that_cannot_be_written_yet(tmp_path: Path):
    with tmpfs(tmp_path / "disk", "size=64k") as directory:
        path = directory / "state.json"
        path.write_text('{"version": 2, "treasure": 1}')
        subprocess.run(["mount", "-o", "remount,ro", directory], check=True)
        store = FileStore(path)
        assert store.load() == {}
        assert not store.save(STATE)
        subprocess.run(["mount", "-o", "remount,rw", directory], check=True)
        assert store.save(STATE)
        assert store.load() == STATE
        assert "treasure" in path.with_name("state.json.v2").read_text()


@pytest.mark.parametrize("kind", ["directory", "fifo", "symlink"])
def test_what_is_no_file_is_not_followed(path: Path, tmp_path: Path, kind: str):
    path.parent.mkdir()
    target = tmp_path / "target"
    target.write_text('{"version": 1, "treasure": 1}')
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(target)
    store = FileStore(path)
    assert store.load() == {}
    assert store.save(STATE)
    assert store.load() == STATE
    assert "treasure" in target.read_text()


@pytest.mark.parametrize("options", ["size=64k", "size=64k,nr_inodes=3"], ids=["space", "inodes"])
def test_a_full_disk_is_said_once_and_recovered_from(tmp_path: Path, options: str):
    with tmpfs(tmp_path / "disk", options) as directory, capture_logs() as logs:
        store = FileStore(directory / "state.json")
        ballast = fill(directory)
        (directory / "another").touch()
        assert store.load() == {}
        assert not any(store.save({"n": n}) for n in range(5))
        ballast.unlink()
        (directory / "another").unlink()
        assert store.save(STATE)
        assert store.load() == STATE
    assert [entry["event"] for entry in logs] == ["store.failed", "store.recovered"]


def test_a_read_only_disk_prevents_nothing_but_memory(tmp_path: Path):
    with tmpfs(tmp_path / "disk", "ro") as directory:
        store = FileStore(directory / "state.json")
        assert store.load() == {}
        assert not store.save(STATE)
        assert uuid.UUID(agent_id(directory, "i-1")).version == 4
        assert not any(directory.iterdir())


def test_no_file_descriptors_left_is_a_failed_save(path: Path):
    store = FileStore(path)
    assert store.save(STATE)
    with no_more_files():
        assert not store.save({})
    assert store.load() == STATE


# --- the agent's id ------------------------------------------------------------------------------


def test_the_agent_id_is_made_once_and_anew_on_another_instance(path: Path):
    directory = path.parent
    first = agent_id(directory, "")
    assert uuid.UUID(first).version == 4
    assert (directory / "agent_id").read_text().strip() == first
    assert agent_id(directory, "i-1") == first  # only now the cloud told it
    assert agent_id(directory, "") == first
    second = agent_id(directory, "i-2")
    assert second != first
    assert agent_id(directory, "i-2") == second
    assert agent_id(directory, "") == second


def test_a_damaged_agent_id_is_made_anew(path: Path):
    agent_id(path.parent, "i-1")
    (path.parent / "agent_id").write_bytes(b"\xff\x00")
    again = agent_id(path.parent, "i-1")
    assert uuid.UUID(again).version == 4
    assert agent_id(path.parent, "i-1") == again


# --- the lock ------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from almagent.adapters.store import Lock
Lock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_agent_is_refused_at_once_and_told_who_holds_it(tmp_path: Path):
    path = tmp_path / "run" / "almagent.lock"
    root = Path(__file__).parent.parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, cwd=root
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        started = time.monotonic()
        with pytest.raises(Refused, match=rf"^cannot lock {path}: process {holder.pid} holds it$"):
            Lock(path).acquire()
        assert time.monotonic() - started < 0.5
        assert path.read_text() == f"{holder.pid}\n"
        holder.kill()
    lock = Lock(path)
    lock.acquire()  # kill -9 releases it
    assert path.read_text() == f"{os.getpid()}\n"
    assert not os.get_inheritable(lock._descriptor)
    lock.release()
    lock.release()
    assert path.exists()
    again = Lock(path)
    again.acquire()
    again.release()


def test_the_lock_needs_no_space_but_a_directory(tmp_path: Path):
    with tmpfs(tmp_path / "run", "size=4k") as directory:
        (directory / "almagent.lock").touch()
        fill(directory)
        lock = Lock(directory / "almagent.lock")
        lock.acquire()
        with pytest.raises(Refused, match="another process holds it"):
            Lock(directory / "almagent.lock").acquire()
        lock.release()
    with (
        tmpfs(tmp_path / "ro", "ro") as directory,
        pytest.raises(Unavailable, match=r"^cannot open the lock .*: Read-only file system$"),
    ):
        Lock(directory / "almagent.lock").acquire()
