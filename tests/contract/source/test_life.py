"""Deadlines, ends in the middle, what they leave behind, and what is cleaned up."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from almagent.adapters.source import GitSourceAdapter
from almagent.core.model import GitSource, Secret
from almagent.ports import Refused, Unavailable
from tests.peers.gitserver import GitHTTPS, Repository

Make = Callable[..., GitSourceAdapter]


def processes_with(text: str) -> list[str]:
    """Command lines of processes that mention `text`, this one left out; those that have ended do not count."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if text in line and process.name != str(os.getpid()):
                found.append(line)
    return found


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture(params=["https", "ssh"])
def silent(request: pytest.FixtureRequest, black_hole: int, key: str) -> GitSource:
    if request.param == "https":
        return GitSource(f"https://127.0.0.1:{black_hole}/app.git", "main")
    return GitSource(f"ssh://git@127.0.0.1:{black_hole}/app.git", "main", private_key=Secret(key))


# --- ends ----------------------------------------------------------------------------------------


async def test_silent_server_ends_at_the_deadline(
    make_source: Make, silent: GitSource, black_hole: int
):
    started = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await make_source(timeout=1.0).checkout(silent)
    assert str(caught.value) == f"cannot fetch {silent.url}: no end within 1 s"
    assert time.monotonic() - started < 2
    await until(lambda: processes_with(str(black_hole)) == [], 1)


async def test_cancelling_ends_every_child(
    make_source: Make, silent: GitSource, black_hole: int, tmp_path: Path
):
    task = asyncio.create_task(make_source().checkout(silent))
    await until(lambda: bool(processes_with(str(black_hole))))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: processes_with(str(black_hole)) == [], 1)
    assert list((tmp_path / "run/git").iterdir()) == []


async def test_newer_checkout_goes_on_when_the_older_is_cancelled(
    make_source: Make, silent: GitSource, repository: Repository, url: str, black_hole: int
):
    source, commit = make_source(), repository.commit({"a": "1"})
    older = asyncio.create_task(source.checkout(silent))
    await until(lambda: bool(processes_with(str(black_hole))))
    newer = asyncio.create_task(source.checkout(GitSource(url)))
    await source.collect([])  # does not wait for either
    older.cancel()
    assert (await newer).commit == commit


async def test_nothing_survives_a_killed_agent(
    make_source: Make, silent: GitSource, black_hole: int, tmp_path: Path
):
    make_source()
    secret = silent.private_key.reveal() if silent.private_key else ""
    code = f"""
import asyncio
from pathlib import Path
from almagent.adapters.source import GitSourceAdapter
from almagent.core.model import GitSource, Secret
place = Path({str(tmp_path)!r})
source = GitSourceAdapter(state_dir=place / "state", runtime_dir=place / "run", known_hosts_file=None,
                          timeout=60, keep_releases=1)
asked = GitSource({silent.url!r}, "main", private_key=Secret({secret!r}) if {secret!r} else None)
asyncio.run(source.checkout(asked))
"""
    script = tmp_path / "agent.py"
    script.write_text(code)
    agent = subprocess.Popen(
        [sys.executable, script], env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    try:
        await until(lambda: len(processes_with(str(black_hole))) >= 3)
    finally:
        agent.send_signal(signal.SIGKILL)
        agent.wait()
    await until(lambda: processes_with(str(black_hole)) == [])
    assert list((tmp_path / "run/git").iterdir())
    make_source()
    assert not (tmp_path / "run/git").exists()


async def test_refused_connection(make_source: Make, repository: Repository):
    repository.commit({"a": "1"})
    with pytest.raises(Unavailable, match=r"cannot fetch https://127.0.0.1:1/a: no connection"):
        await make_source().checkout(GitSource("https://127.0.0.1:1/a"))


@pytest.mark.parametrize(
    ("status", "kind"), [(500, Unavailable), (503, Unavailable), (429, Unavailable), (403, Refused)]
)
async def test_server_that_says_no(
    make_source: Make, https: GitHTTPS, url: str, status: int, kind: type[Exception]
):
    https.status = status
    with pytest.raises(kind, match=rf"^cannot fetch {url}: "):
        await make_source().checkout(GitSource(url))


async def test_redirect_to_plain_http(make_source: Make, https: GitHTTPS, url: str):
    https.redirect = "http://localhost:1"
    with pytest.raises(Refused, match="redirected to something else than https"):
        await make_source().checkout(GitSource(url))


async def test_git_is_not_installed(
    make_source: Make, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = make_source()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="cannot fetch code: git is not installed"):
        await source.checkout(GitSource(url))


async def test_progress_is_told(make_source: Make, repository: Repository, url: str):
    repository.commit({f"f{n}": str(n) for n in range(50)})
    told: list[tuple[str, int, int]] = []
    await make_source().checkout(GitSource(url), lambda *what: told.append(what))
    assert ("receiving objects", 52, 52) in told


# --- what is left behind -------------------------------------------------------------------------


def stale_locks(mirror: Path) -> None:
    for name in ("HEAD.lock", "config.lock", "shallow.lock", "packed-refs.lock"):
        (mirror / name).touch()
    (mirror / "refs/almagent/fetched.lock").touch()
    (mirror / "objects/pack/tmp_pack_x").touch()


def lost_pack(mirror: Path) -> None:
    for pack in (mirror / "objects/pack").iterdir():
        pack.unlink()


def cut_pack(mirror: Path) -> None:
    for pack in (mirror / "objects/pack").glob("*.pack"):
        pack.chmod(0o600)
        os.truncate(pack, 30)


def empty_reference(mirror: Path) -> None:
    os.truncate(mirror / "refs/almagent/fetched", 0)


def no_head(mirror: Path) -> None:
    (mirror / "HEAD").unlink()


def broken_config(mirror: Path) -> None:
    (mirror / "config").write_text("[core\n")


@pytest.mark.parametrize(
    ("damage", "again"),
    [
        *[
            (stale_locks, "next"),
            (lost_pack, "next"),
            (cut_pack, "next"),
            (empty_reference, "next"),
        ],
        *[(lost_pack, "same"), (cut_pack, "same"), (no_head, "same"), (broken_config, "same")],
    ],
)
async def test_damaged_mirror(
    make_source: Make,
    repository: Repository,
    url: str,
    tmp_path: Path,
    damage: Callable[[Path], None],
    again: str,
):
    commit = repository.commit({"a": "1", "b": "2" * 5000})
    source = make_source()
    first = await source.checkout(GitSource(url, "main"))
    (mirror,) = (tmp_path / "state/mirror").iterdir()
    damage(mirror)
    if again == "next":
        commit = repository.commit({"a": "2"})
    else:
        first.path.rename(tmp_path / "gone")
    done = await make_source().checkout(GitSource(url, "main"))
    assert (done.commit, (done.path / "b").read_text()) == (commit, "2" * 5000)


async def test_unfinished_exports_are_swept(
    make_source: Make, repository: Repository, url: str, tmp_path: Path
):
    left = tmp_path / "state/releases/0123-4567.abc.tmp"
    (left / "d").mkdir(parents=True)
    repository.commit({"a": "1"})
    await make_source().checkout(GitSource(url))
    assert not left.exists()


@pytest.fixture
def small_disk(make_source: Make, tmp_path: Path) -> Iterator[Path]:
    """STATE_DIR on a file system of 12 MB."""
    place = tmp_path / "state"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.parametrize(
    ("files", "filled", "need"),
    [
        ({f"f{n}": "x" * 8000 for n in range(1000)}, 0, "16580608 bytes"),  # packed it is small
        ({"big": os.urandom(5 << 20)}, 0, r"more than [34]\d{6} bytes"),
        ({"a": "1"}, 5 << 20, "more than 8388608 bytes"),
    ],
    ids=["tree", "pack", "full"],
)
async def test_full_disk(
    make_source: Make,
    repository: Repository,
    url: str,
    small_disk: Path,
    files: dict[str, str | bytes],
    filled: int,
    need: str,
):
    """Refused with both figures, with nothing left of it; it goes on when there is space again."""
    source, filler = make_source(), small_disk / "filler"
    filler.write_bytes(bytes(filled))
    commit = repository.commit(files)
    with pytest.raises(Refused) as caught:
        await source.checkout(GitSource(url, "main"))
    words = f"cannot fetch {url}: it needs {need} of disk, \\d+ are free in {small_disk}"
    assert re.match(words, str(caught.value))
    assert os.statvfs(small_disk).f_bfree * 4096 > (11 << 20) - filled
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert (await source.checkout(GitSource(url, "main"))).commit == commit


async def test_room_is_made_by_removing_what_is_kept_only_because_it_is_recent(
    make_source: Make, repository: Repository, url: str, small_disk: Path
):
    source, done = make_source(keep_releases=5), []
    for number in range(3):
        repository.commit({"a": bytes([number]) * (1 << 20)})
        done.append(await source.checkout(GitSource(url, "main")))
    await source.collect([str(done[2].path)])
    again = await source.checkout(GitSource(url, done[1].commit))  # it may be in use from now on
    repository.commit({"a": bytes(3 << 19)})
    newest = await source.checkout(GitSource(url, "main"))
    assert [checkout.path.exists() for checkout in (*done, newest)] == [False, True, True, True]
    assert again.path == done[1].path
    repository.commit({"a": bytes(1 << 20)})
    with pytest.raises(Refused, match="it needs 9437184 bytes of disk"):
        await source.checkout(GitSource(url, "main"))
    assert newest.path.exists()


# --- clean-up ------------------------------------------------------------------------------------


async def test_releases_are_collected_but_not_those_in_use(
    make_source: Make, repository: Repository, url: str, tmp_path: Path
):
    source = make_source(keep_releases=2)
    done = []
    for number in range(5):
        repository.commit({"a": str(number), "mobingi-init.sh": "x"})
        done.append(await source.checkout(GitSource(url, "main")))
    foreign = tmp_path / "state/releases/notes.txt"
    foreign.touch()
    await source.collect([str(done[0].path)])
    left = [checkout for checkout in done if checkout.path.exists()]
    assert left == [done[0], done[3], done[4]]
    assert sum(1 for _ in (tmp_path / "state/releases").iterdir()) == 3 * 3 + 1
    again = await source.checkout(GitSource(url, done[1].commit))
    assert (again.path / "a").read_text() == "1"


async def test_disk_use_is_bounded_over_many_releases(
    make_source: Make, repository: Repository, url: str, tmp_path: Path
):
    source, sizes = make_source(), []
    for number in range(14):
        repository.commit({"a": os.urandom(20_000), "n": str(number)})
        done = await source.checkout(GitSource(url, "main"))
        await source.collect([str(done.path)])
        sizes.append(sum(p.stat().st_size for p in (tmp_path / "state").rglob("*") if p.is_file()))
    assert sizes[-1] < sizes[5] * 1.1
    assert max(sizes) < 14 * 25_000


async def test_mirror_of_a_repository_that_is_no_longer_used_goes(
    make_source: Make, repository: Repository, https: GitHTTPS, url: str, tmp_path: Path
):
    source, other = make_source(keep_releases=1), Repository(tmp_path / "remote/other.git")
    repository.commit({"a": "1"})
    other.commit({"a": "1"})
    await source.checkout(GitSource(url))
    await source.checkout(GitSource(https.url(other)))
    assert sum(1 for _ in (tmp_path / "state/mirror").iterdir()) == 2
    await source.collect([])
    assert sum(1 for _ in (tmp_path / "state/mirror").iterdir()) == 1
