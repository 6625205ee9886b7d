"""The git adapter as these tests use it: real servers, everything below the test's own directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from almagent.adapters.source import GitSourceAdapter
from tests.peers.gitserver import (  # noqa: F401 - fixtures
    GitHTTPS,
    Repository,
    _https,
    _key,
    _sshd,
    black_hole,
    https,
    key,
    own_sshd,
    repository,
    sshd,
)


@pytest.fixture
def url(https: GitHTTPS, repository: Repository) -> str:  # noqa: F811
    return https.url(repository)


@pytest.fixture
def make_source(tmp_path: Path) -> Callable[..., GitSourceAdapter]:
    """Each call is a restart of the agent: a new adapter over the same directories."""
    for name in ("state", "run"):
        (tmp_path / name).mkdir(mode=0o700)

    def make(**settings: object) -> GitSourceAdapter:
        known = {"known_hosts_file": None, "timeout": 30.0, "keep_releases": 2, **settings}
        return GitSourceAdapter(state_dir=tmp_path / "state", runtime_dir=tmp_path / "run", **known)  # type: ignore[arg-type]

    return make
