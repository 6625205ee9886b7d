"""Code from git in the container, and secrets that stay where they belong."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

from tests.peers.agent import SECRET, Agent, fetch
from tests.peers.api import ScriptedApi
from tests.peers.gitserver import (  # noqa: F401 - fixtures
    GitHTTPS,
    Repository,
    Sshd,
    _https,
    _key,
    _sshd,
    https,
    key,
    repository,
    sshd,
)
from tests.peers.registry import PASSWORD
from tests.scenario.releases import document

TOKEN = "canary-git-token"


async def test_the_commit_is_mounted_and_a_new_one_is_a_new_release(
    agent: Agent,
    api: ScriptedApi,
    image: str,
    port: int,
    https: GitHTTPS,  # noqa: F811
    repository: Repository,  # noqa: F811
):
    first = repository.commit({"index.html": "first", "mobingi-init.sh": "#!/bin/sh\n"})
    wanted = {
        **document(image, port, CODE="/srv/app"),
        "gitRepo": https.url(repository),
        "gitReference": "main",
        "codeDir": "/srv/app",
    }
    api.document = wanted
    await agent.start()
    await agent.until_told("uptodate")
    assert await fetch(port) == "one first"
    (container,) = agent.running()
    assert container["Labels"]["almagent.commit"] == first
    script = agent.engine.exec_create(container["Id"], ["test", "-x", "/tmp/init/init.sh"])
    agent.engine.exec_start(script["Id"])
    assert agent.engine.exec_inspect(script["Id"])["ExitCode"] == 0
    no_git = agent.engine.exec_create(container["Id"], ["test", "-e", "/srv/app/.git"])
    agent.engine.exec_start(no_git["Id"])
    assert agent.engine.exec_inspect(no_git["Id"])["ExitCode"] == 1

    repository.commit({"index.html": "second"})
    await asyncio.sleep(1.5)
    assert await fetch(port) == "one first"  # a branch that moves is no new document
    api.document = {**wanted, "updated": 1}
    await agent.until_told("uptodate", 2)
    assert await fetch(port) == "one second"


async def test_a_missing_reference_is_named_and_what_serves_stays(
    agent: Agent,
    api: ScriptedApi,
    image: str,
    port: int,
    https: GitHTTPS,  # noqa: F811
    repository: Repository,  # noqa: F811
):
    repository.commit({"index.html": "first"})
    wanted = {**document(image, port), "gitRepo": https.url(repository), "gitReference": "main"}
    api.document = wanted
    await agent.start()
    await agent.until_told("uptodate")
    (before,) = agent.running()
    api.document = {**wanted, "gitReference": "no-such-branch"}
    await agent.until_told("error")
    assert 'reference "no-such-branch"' in agent.last_error()
    assert [c["Id"] for c in agent.containers()] == [before["Id"]]
    repository.commit({"index.html": "there"}, branch="no-such-branch")
    await agent.until_told("uptodate", 2, patience=30)  # it recovers by itself
    assert await fetch(port) == "one there"


async def test_secrets_are_nowhere_to_be_read(
    agent: Agent,
    api: ScriptedApi,
    image: str,
    port: int,
    sshd: Sshd,  # noqa: F811
    key: str,  # noqa: F811
    https: GitHTTPS,  # noqa: F811
    repository: Repository,  # noqa: F811
):
    repository.commit({"index.html": "first"})
    canary = "canary-environment-value"
    wanted = document(image, port, MY_SECRET=canary)
    api.document = {**wanted, "gitRepo": sshd.url(repository), "gitPrivateKey": key}
    watching = asyncio.create_task(arguments_of_all_processes())
    await agent.start()
    await agent.until_told("uptodate")
    https.password = TOKEN
    https.user = "deploy"
    api.document = {**wanted, "gitRepo": https.url(repository, f"deploy:{TOKEN}@"), "updated": 1}
    await agent.until_told("uptodate", 2)
    api.document = {**wanted, "gitRepo": https.url(repository, "deploy:canary-wrong@")}
    await agent.until_told("error")
    await agent.end()
    watching.cancel()
    said = (await asyncio.gather(watching, return_exceptions=True))[0]
    key_line = key.splitlines()[2]
    secrets = [SECRET, canary, TOKEN, "canary-wrong", PASSWORD, key_line, *api.valid_tokens]
    labels = json.dumps([c["Labels"] for c in agent.containers()])
    statuses = json.dumps(agent.statuses())
    for secret in secrets:
        for where, text in {
            "log": agent.log_file.read_text(),
            "status": statuses,
            "label": labels,
            "arguments": str(said),
        }.items():
            assert secret not in text, where
        assert_private(agent.directory, secret)


async def arguments_of_all_processes() -> set[str]:
    """Every argument list that was seen until cancelled."""
    seen: set[str] = set()
    try:
        while True:
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    seen.add((process / "cmdline").read_text(errors="replace"))
                except OSError:
                    continue  # ended meanwhile
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        return seen


def assert_private(directory: Path, secret: str) -> None:
    """Whatever file holds it is for root alone, and so are all ways to it."""
    for path in (directory / "state", directory / "run"):
        for folder, _, names in os.walk(path):
            for name in names:
                file = Path(folder, name)
                if file.is_file() and secret.encode() in file.read_bytes():
                    assert not stat.S_IMODE(file.stat().st_mode) & 0o077, file


async def test_docker_away_is_told_and_recovered_from(
    agent: Agent, api: ScriptedApi, image: str, port: int, tmp_path: Path
):
    socket = tmp_path / "docker.sock"
    agent.configure(docker={"host": f"unix://{socket}"})
    api.document = document(image, port)
    await agent.start()
    await agent.until_told("error")
    assert "cannot reach the Docker engine" in agent.last_error()
    await asyncio.sleep(2)
    assert agent.words().count("error") == 1
    socket.symlink_to("/var/run/docker.sock")
    await agent.until_told("uptodate", patience=40)
    assert await fetch(port) == "one"
    assert "Traceback" not in agent.log_file.read_text()
