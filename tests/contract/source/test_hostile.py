"""Repositories and hosts that want more than to be deployed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from almagent.adapters.source import GitSourceAdapter
from almagent.core.model import GitSource
from almagent.ports import Refused
from tests.peers.gitserver import Repository

Make = Callable[..., GitSourceAdapter]


async def refusal(source: GitSourceAdapter, asked: GitSource, state: Path) -> str:
    """What it says; and nothing of the tree stays on the disk."""
    with pytest.raises(Refused) as caught:
        await source.checkout(asked)
    assert list((state / "releases").iterdir()) == []
    text = str(caught.value)
    assert re.fullmatch(r"cannot [^\n]+", text)
    return text


@pytest.mark.parametrize(
    "links",
    [
        {"l": "/etc/shadow"},
        {"l": ".."},
        {"a/l": "../../x"},
        {"a/b/c/d": "../../..", "l": "a/b/c/d/../x"},  # inside as text, outside for the kernel
        {"l": "l"},
        {"a": "b", "b": "a"},
        {"l": "x/" * 600},
    ],
    ids=str,
)
async def test_link_that_leaves_the_tree(
    make_source: Make, repository: Repository, url: str, tmp_path: Path, links: dict[str, str]
):
    repository.commit({**links, "a.txt": "x"}, modes=dict.fromkeys(links, "120000"))
    text = await refusal(make_source(), GitSource(url), tmp_path / "state")
    assert "symbolic link" in text


async def test_names_that_git_itself_would_not_write(
    make_source: Make, repository: Repository, url: str, tmp_path: Path
):
    blob, link = repository.blob(b"x"), repository.blob(b"d")
    inner = repository.raw_tree([("100644", "x", blob)])
    tree = repository.git("rev-parse", f"{inner}^{{tree}}")
    for entries in (
        [("40000", "..", tree)],
        [("100644", "..", blob)],
        [("40000", ".git", tree)],
        [("40000", ".GIT", tree)],
        [("120000", "d", link), ("40000", "d", tree)],
        [("100644", "a", blob), ("100644", "a", blob)],
    ):
        repository.raw_tree(entries)
        text = await refusal(make_source(), GitSource(url), tmp_path / "state")
        assert "path" in text
    assert not (tmp_path / "state/x").exists()


async def test_hundred_thousand_files(
    make_source: Make, repository: Repository, url: str, tmp_path: Path
):
    blob = repository.blob(b"x")
    files = repository.raw_tree([("100644", f"f{n:04}", blob) for n in range(1000)])
    thousand = repository.git("rev-parse", f"{files}^{{tree}}")
    repository.raw_tree([("40000", f"d{n:03}", thousand) for n in range(100)])
    text = await refusal(make_source(), GitSource(url), tmp_path / "state")
    assert "it has more than 50000 files" in text


async def test_tree_that_grows_without_bound(
    make_source: Make, repository: Repository, url: str, tmp_path: Path
):
    tree = repository.git("rev-parse", repository.raw_tree([("100644", "f" * 200, repository.blob(b""))]) + "^{tree}")  # fmt: skip
    for _ in range(9):  # ten to the ninth files in eleven objects
        commit = repository.raw_tree([("40000", f"d{n}", tree) for n in range(10)])
        tree = repository.git("rev-parse", f"{commit}^{{tree}}")
    text = await refusal(make_source(), GitSource(url), tmp_path / "state")
    assert "it has more than 50000 files" in text


async def test_huge_file(make_source: Make, repository: Repository, url: str, tmp_path: Path):
    """16 MiB that fit in a small pack stand for 2 GB: told by the listing, never written."""
    repository.commit({"huge.bin": bytes(1 << 24)})
    source = make_source(max_bytes=1 << 23)
    text = await refusal(source, GitSource(url), tmp_path / "state")
    assert "with huge.bin it is larger than 8388608 bytes" in text
    sizes = [path.stat().st_size for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert max(sizes) < 1 << 20


async def test_huge_pack(make_source: Make, repository: Repository, url: str, tmp_path: Path):
    repository.commit({"huge.bin": os.urandom(1 << 22)})
    source = make_source(max_bytes=1 << 20)
    text = await refusal(source, GitSource(url), tmp_path / "state")
    assert text == f"cannot fetch {url}: it is larger than 1048576 bytes"
    assert list((tmp_path / "state/mirror").rglob("tmp_*")) == []
    repository.commit({"small": "x"}, fresh=True)
    await source.checkout(GitSource(url))
    packs = (tmp_path / "state/mirror").rglob("pack/*")
    assert sum(path.stat().st_size for path in packs) < 1 << 16


async def test_commands_in_the_repository_and_around_it_do_not_run(
    make_source: Make,
    repository: Repository,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """A poisoned environment and configuration of the host, a poisoned mirror, filters asked for."""
    ran = tmp_path / "ran"
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {ran}\ncat\n")
    trap.chmod(0o755)
    template = tmp_path / "template/hooks"
    template.mkdir(parents=True)
    hooks = ("post-checkout", "reference-transaction", "pre-auto-gc", "post-index-change")
    for hook in hooks:
        (template / hook).symlink_to(trap)
    config = tmp_path / ".gitconfig"
    config.write_text(
        f"[init]\ntemplateDir={template.parent}\n[core]\nfsmonitor={trap}\nhooksPath={template}\n"
        f'sshCommand={trap}\n[filter "lfs"]\nsmudge={trap}\nprocess={trap}\nrequired=true\n'
        f'[credential]\nhelper={trap}\n[tar "tar"]\ncommand={trap}\n[gc]\nauto=1\n'
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, str(config))
    for name in ("GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_EXTERNAL_DIFF", "GIT_PROXY_COMMAND"):
        monkeypatch.setenv(name, str(trap))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(template.parent))
    files = {
        ".gitattributes": "* filter=lfs\n",
        ".lfsconfig": "[lfs]\nurl=http://127.0.0.1:1/\n",
        ".gitmodules": f'[submodule "s"]\n path = s\n url = ext::{trap}\n update = !{trap}\n',
        "hooks/post-checkout": trap.read_text(),
        "a": "1",
    }
    repository.commit(files, modes={"hooks/post-checkout": "100755"})
    repository.submodule("s")
    source = make_source()
    await source.checkout(GitSource(url, "main"))
    (mirror,) = (tmp_path / "state/mirror").iterdir()
    assert not (mirror / "hooks").exists()
    (mirror / "hooks").mkdir()
    for hook in hooks:
        (mirror / "hooks" / hook).symlink_to(trap)
    repository.commit({"a": "2"})
    done = await source.checkout(GitSource(url, "main"))
    await source.collect([])
    assert (done.path / "a").read_text() == "2"
    assert not ran.exists()


@pytest.mark.parametrize(
    "asked",
    [
        GitSource("ext::sh -c 'touch /tmp/x'"),
        GitSource("file:///etc"),
        GitSource("/etc"),
        GitSource("--upload-pack=touch /tmp/x"),
        GitSource("https://user:password@127.0.0.1/a.git"),
        GitSource("https://127.0.0.1/a.git", "--upload-pack=x"),
        GitSource("https://127.0.0.1/a.git", "a\nb"),
    ],
    ids=str,
)
async def test_what_the_document_should_have_refused_reaches_no_process(
    make_source: Make, tmp_path: Path, asked: GitSource
):
    with pytest.raises(Refused, match="cannot fetch code: ") as caught:
        await make_source().checkout(asked)
    assert "password" not in str(caught.value)
    assert list((tmp_path / "state").iterdir()) == []
