"""The Source port over real git servers: which commit is meant, and what of it reaches the disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from almagent.adapters.source import GitSourceAdapter
from almagent.core.model import GitSource, Secret
from almagent.ports import Refused
from tests.peers.gitserver import GitHTTPS, Repository, Sshd

Make = Callable[..., GitSourceAdapter]


def events(logs: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    return [entry for entry in logs if entry["event"] == name]


# --- which commit --------------------------------------------------------------------------------


async def test_default_branch(make_source: Make, repository: Repository, url: str):
    repository.commit({"a": "wrong"}, branch="aaa")
    commit = repository.commit({"a": "right"})
    done = await make_source().checkout(GitSource(url))
    assert (done.commit, (done.path / "a").read_text()) == (commit, "right")


async def test_branch_is_not_confused_with_names_that_end_alike(
    make_source: Make, repository: Repository, url: str
):
    repository.commit({"a": "wrong"}, branch="aaa/master")
    commit = repository.commit({"a": "right"}, branch="master")
    assert (await make_source().checkout(GitSource(url, "master"))).commit == commit


async def test_branch_comes_before_tag_of_the_same_name(
    make_source: Make, repository: Repository, url: str
):
    first = repository.commit({"a": "tagged"})
    repository.git("tag", "v1", first)
    branch = repository.commit({"a": "branch"}, branch="v1")
    with capture_logs() as logs:
        assert (await make_source().checkout(GitSource(url, "v1"))).commit == branch
    assert events(logs, "source.ambiguous")
    assert (await make_source().checkout(GitSource(url, "refs/tags/v1"))).commit == first


@pytest.mark.parametrize("annotated", [["-a", "-m", "x"], []], ids=["annotated", "lightweight"])
async def test_tag(make_source: Make, repository: Repository, url: str, annotated: list[str]):
    commit = repository.commit({"a": "1"})
    repository.git("tag", *annotated, "v1")
    repository.commit({"a": "2"})
    assert (await make_source().checkout(GitSource(url, "v1"))).commit == commit


async def test_full_commit_that_no_name_stands_for(
    make_source: Make, repository: Repository, https: GitHTTPS, url: str
):
    commit = repository.commit({"a": "1"})
    repository.commit({"a": "2"})
    source = make_source()
    assert (await source.checkout(GitSource(url, commit))).commit == commit
    https.requests.clear()
    assert (await source.checkout(GitSource(url, commit.upper()))).commit == commit
    assert https.requests == []  # it never means anything else


async def test_short_commit(make_source: Make, repository: Repository, url: str):
    commit = repository.commit({"a": "1"})
    repository.commit({"a": "2"})
    source = make_source()
    await source.checkout(GitSource(url))  # the mirror is shallow now
    assert (await source.checkout(GitSource(url, commit[:9]))).commit == commit


async def test_branch_whose_name_looks_like_a_short_commit(
    make_source: Make, repository: Repository, url: str
):
    commit = repository.commit({"a": "1"}, branch="1234567")
    assert (await make_source().checkout(GitSource(url, "1234567"))).commit == commit


@pytest.mark.parametrize("reference", ["gone", "refs/heads/gone", "abcdef1", "1" * 40], ids=str)
async def test_reference_that_is_not_there(
    make_source: Make, repository: Repository, url: str, reference: str
):
    repository.commit({"a": "1"})
    with pytest.raises(Refused) as caught:
        await make_source().checkout(GitSource(url, reference))
    assert str(caught.value) == f'cannot find reference "{reference}" in {url}'


async def test_tag_of_something_else_than_a_commit(
    make_source: Make, repository: Repository, url: str
):
    repository.commit({"a": "1"})
    repository.git("tag", "blob", repository.blob(b"x"))
    with pytest.raises(Refused, match="commit"):
        await make_source().checkout(GitSource(url, "blob"))


@pytest.mark.usefixtures("repository")
async def test_empty_repository(make_source: Make, url: str):
    with pytest.raises(Refused, match="cannot find a default branch in https"):
        await make_source().checkout(GitSource(url))


async def test_force_push_is_followed(make_source: Make, repository: Repository, url: str):
    source = make_source()
    repository.commit({"a": "1"})
    repository.commit({"a": "2"})
    await source.checkout(GitSource(url, "main"))
    repository.git("update-ref", "-d", "refs/heads/main")
    commit = repository.commit({"a": "other"})
    done = await source.checkout(GitSource(url, "main"))
    assert (done.commit, (done.path / "a").read_text()) == (commit, "other")


async def test_branch_that_goes_away_and_comes_back_as_tag(
    make_source: Make, repository: Repository, url: str
):
    source = make_source()
    commit = repository.commit({"a": "1"}, branch="x")
    await source.checkout(GitSource(url, "x"))
    repository.git("tag", "keep", commit)
    repository.git("update-ref", "-d", "refs/heads/x")
    with pytest.raises(Refused, match='cannot find reference "x"'):
        await source.checkout(GitSource(url, "x"))
    repository.git("tag", "x", commit)
    assert (await source.checkout(GitSource(url, "x"))).commit == commit


# --- what is exported ----------------------------------------------------------------------------


async def test_tree_as_it_is_committed(make_source: Make, repository: Repository, url: str):
    files = {
        "index.php": "<?php\r\n",
        "d/e/run.sh": "#!/bin/sh\n",
        "日本語 name.txt": "é",
        "empty": "",
        "version": "$Format:%H$",
        ".gitattributes": "version export-subst\n*.bin filter=lfs\n",
    }
    repository.commit(files, modes={"d/e/run.sh": "100755"})
    path = (await make_source().checkout(GitSource(url))).path
    found = {
        str(p.relative_to(path)): p.read_bytes().decode() for p in path.rglob("*") if p.is_file()
    }
    assert found == files
    modes = {p: (path / p).stat().st_mode & 0o7777 for p in ("index.php", "d/e/run.sh", "d", ".")}
    assert modes == {"index.php": 0o644, "d/e/run.sh": 0o755, "d": 0o755, ".": 0o755}


async def test_link_inside_the_tree_is_kept(make_source: Make, repository: Repository, url: str):
    repository.commit({"a/b": "x", "l": "a/../a/b"}, modes={"l": "120000"})
    path = (await make_source().checkout(GitSource(url))).path
    assert (path / "l").readlink() == Path("a/../a/b")


@pytest.mark.parametrize("name", ["mobingi-init.sh", "mobingi-install.sh"])
async def test_init_script(make_source: Make, repository: Repository, url: str, name: str):
    repository.commit({name: "#!/bin/sh\n"})
    done = await make_source().checkout(GitSource(url))
    assert done.init_script is not None
    assert done.init_script.read_text() == "#!/bin/sh\n"
    assert done.init_script.stat().st_mode & 0o7777 == 0o755
    assert not done.init_script.is_relative_to(done.path)
    assert (done.path / name).stat().st_mode & 0o7777 == 0o644


async def test_first_init_script_counts(make_source: Make, repository: Repository, url: str):
    repository.commit({"mobingi-init.sh": "1", "mobingi-install.sh": "2"})
    done = await make_source().checkout(GitSource(url))
    assert done.init_script is not None
    assert done.init_script.read_text() == "1"


async def test_link_as_init_script_is_not_followed(
    make_source: Make, repository: Repository, url: str
):
    files = {"mobingi-init.sh": "x", "x": "", "mobingi-install.sh/a": ""}
    repository.commit(files, modes={"mobingi-init.sh": "120000"})
    with capture_logs() as logs:
        assert (await make_source().checkout(GitSource(url))).init_script is None
    assert len(events(logs, "source.init_script_ignored")) == 2


async def test_lfs_pointers_and_submodules_are_told(
    make_source: Make, repository: Repository, url: str
):
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345678\n"
    repository.commit({
        ".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n",
        "a.bin": pointer,
        "b.bin": "not a pointer" * 20,
        ".gitmodules": '[submodule "s"]\n path = s\n url = ext::sh -c "touch /tmp/submodule-ran"\n',
    })  # fmt: skip
    repository.submodule("s")
    with capture_logs() as logs:
        done = await make_source().checkout(GitSource(url))
    assert (done.path / "a.bin").read_text() == pointer
    assert events(logs, "source.lfs_pointers")[0]["count"] == 1
    assert events(logs, "source.submodules")[0]["first"] == "s"


async def test_it_is_told_what_people_know_the_commit_by(
    make_source: Make, repository: Repository, url: str
):
    commit = repository.commit({"a": "1"})
    source = make_source()
    with capture_logs() as logs:
        await source.checkout(GitSource(url))
        for _ in range(2):
            await source.collect([])
    (told,) = events(logs, "source.commit")
    assert (told["commit"], told["summary"]) == (commit, "c")
    assert told["authored"] == "2023-11-14T22:13:21+00:00"


# --- the same again ------------------------------------------------------------------------------


async def test_only_what_is_new_is_fetched(
    make_source: Make, repository: Repository, url: str, tmp_path: Path
):
    source = make_source()
    repository.commit({"big": os.urandom(1 << 20)})
    await source.checkout(GitSource(url, "main"))
    before = sum(p.stat().st_size for p in (tmp_path / "state/mirror").rglob("*.pack"))
    repository.commit({"small": "x"})
    done = await source.checkout(GitSource(url, "main"))
    after = sum(p.stat().st_size for p in (tmp_path / "state/mirror").rglob("*.pack"))
    assert (done.path / "small").read_text() == "x"
    assert after - before < 10_000


async def test_same_commit_is_exported_once(make_source: Make, repository: Repository, url: str):
    source = make_source()
    repository.commit({"a": "1"})
    first = await source.checkout(GitSource(url))
    (first.path / "written-by-the-container").touch()
    assert await source.checkout(GitSource(url)) == first
    assert await make_source().checkout(GitSource(url)) == first
    assert (first.path / "written-by-the-container").exists()


async def test_over_ssh(make_source: Make, repository: Repository, sshd: Sshd, key: str):
    commit = repository.commit({"a": "1"})
    source = make_source()
    asked = GitSource(sshd.url(repository), "main", private_key=Secret(key))
    assert (await source.checkout(asked)).commit == commit
    commit = repository.commit({"a": "2"})
    assert (await source.checkout(asked)).commit == commit
