"""What a power cut leaves of an export: all of it or nothing under its name."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from almagent.adapters.source import GitSourceAdapter
from almagent.core.model import GitSource
from tests.peers.gitserver import Repository

Make = Callable[..., GitSourceAdapter]

FILES = {f"d{n % 7}/f{n}": f"{n} " * (n * 10 % 4000 + 1) for n in range(300)}
FILES["mobingi-init.sh"] = "#!/bin/sh\n"


@contextmanager
def mounted(disk: Path, place: Path) -> Iterator[None]:
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", disk, place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A file with an ext4 file system: whatever is in the file has reached the disk."""
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    return disk


async def test_an_export_that_was_reported_is_on_the_disk(
    make_source: Make, repository: Repository, url: str, tmp_path: Path, disk: Path
):
    repository.commit(FILES)
    with mounted(disk, tmp_path / "state"):
        done = await make_source().checkout(GitSource(url, "main"))
        (tmp_path / "after").write_bytes(disk.read_bytes())
    with mounted(tmp_path / "after", tmp_path / "state"):
        found = {
            str(path.relative_to(done.path)): path.read_text()
            for path in done.path.rglob("*")
            if path.is_file()
        }
        assert found == FILES
        assert done.init_script is not None
        assert done.init_script.read_text() == FILES["mobingi-init.sh"]
