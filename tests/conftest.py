"""Fixtures every tier shares, and two promises of a run: it leaves nothing behind, and, where the
environment says CI=true, it skips nothing.

A test that needs a peer which is not there fails and says so: it never skips itself.
"""

from __future__ import annotations

import itertools
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from tests.peers import leaks
from tests.peers.docker_engine import connect
from tests.peers.images import Images

SESSION = secrets.token_hex(4)  # in the label, the stack name or the environment of all we start
LEFTOVER_PATIENCE = 5.0  # seconds; a process that was told to end may need a moment
UNDER_CI = os.environ.get("CI") == "true"


@pytest.fixture(scope="session", autouse=True)
def no_leftovers() -> Iterator[None]:
    """Fails the run when something that it started is still there at its end."""
    os.environ[leaks.MARK] = SESSION
    before = leaks.engine_objects() | leaks.nft_tables()
    yield
    deadline = time.monotonic() + LEFTOVER_PATIENCE
    while (left := _left(before)) and time.monotonic() < deadline:
        time.sleep(0.1)
    del os.environ[leaks.MARK]
    leaks.clear(SESSION)
    if left:
        pytest.fail("left behind: " + "; ".join(sorted(left)), pytrace=False)


def _left(before: set[str]) -> set[str]:
    """On a machine of its own (CI) all that is new; elsewhere only what surely is this session's."""
    new = (leaks.engine_objects() | leaks.nft_tables()) - before
    ours = new if UNDER_CI else {line for line in new if SESSION in line}
    return ours | leaks.processes(SESSION)


@pytest.fixture(scope="session")
def docker_api(no_leftovers: None) -> Iterator[docker.APIClient]:
    """The vendor's low-level client on the engine of this machine (DOCKER_HOST is honoured)."""
    api = connect()
    yield api
    api.close()


@pytest.fixture(scope="session")
def images(docker_api: docker.APIClient) -> Images:
    """Makes container images from busybox; they are removed at the end of the session."""
    return Images(docker_api, SESSION)


_numbers = itertools.count(1)


@pytest.fixture
def stack_id() -> str:
    """A stack no other test has. What carries it in the label almagent.stack is checked for leaks."""
    return f"test-{SESSION}-{next(_numbers)}"


@dataclass(frozen=True)
class AgentDirs:
    state: Path
    runtime: Path


@pytest.fixture
def tmp_agent_dirs(tmp_path: Path) -> AgentDirs:
    """STATE_DIR and RUNTIME_DIR of one agent, present and private."""
    dirs = AgentDirs(tmp_path / "state", tmp_path / "run")
    dirs.state.mkdir(mode=0o700)
    dirs.runtime.mkdir(mode=0o700)
    return dirs


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if UNDER_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped: {call.excinfo and call.excinfo.value}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    report = yield
    if UNDER_CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped: {report.longrepr}"
    return report
