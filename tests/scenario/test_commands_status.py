"""`almagent status` and the socket it asks, with the real daemon and a real deployment."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import TypeAdapter

from almagent.asking import ANSWERS
from almagent.commands.status import CLEAR
from almagent.socketpath import SOCKET
from almagent.status import Snapshot
from tests.peers.agent import SECRET, Agent
from tests.peers.api import CONFIG, ScriptedApi, reply
from tests.peers.apps import app
from tests.peers.command import almagent
from tests.peers.images import Images
from tests.peers.registry import PASSWORD, RunningRegistry
from tests.scenario.releases import document

CANARY = "canary-of-the-environment"
SCHEMA = TypeAdapter(Snapshot)
NOBODY = 65534


def ask(agent: Agent) -> aiohttp.ClientSession:
    path = str(agent.directory / "run" / "almagent.sock")
    return aiohttp.ClientSession("http://almagent", connector=aiohttp.UnixConnector(path))


async def told(agent: Agent) -> tuple[Snapshot, str]:
    """The status, valid by the schema, and its text."""
    done = await almagent("status", "--json", "--config", agent.config)
    assert (done.code, done.err) == (0, "")
    return SCHEMA.validate_json(done.out, extra="forbid"), done.out


async def test_the_life_of_a_release_as_status_tells_it(
    agent: Agent, api: ScriptedApi, shared_registry: RunningRegistry, images: Images, port: int
):
    wanted = document(shared_registry.push(app(images), "status:1"), port, PASSWORD=CANARY)
    api.document = {**wanted, "updated": 7}
    agent.configure()
    nobody = await almagent("status", "--config", agent.config)
    assert (nobody.code, nobody.out) == (3, "")
    assert nobody.err.startswith("almagent is not running: ")
    assert nobody.err.count("\n") == 1

    await agent.start()
    await agent.until_told("uptodate")
    (container,) = agent.running()
    status, raw = await told(agent)
    assert (status.phase, status.flag, status.stack_id) == ("uptodate", "Web01", agent.stack_id)
    assert status.desired.updated == 7
    assert status.active is not None
    assert status.active.container_id == container["Id"]
    assert (status.active.image, status.active.ports) == (wanted["image"], (port,))
    assert status.active.revision == status.desired.revision
    assert status.active.image_digest.startswith("sha256:")
    assert (status.active.state, status.candidate) == ("running", None)
    assert (status.last_poll.result, status.last_error) == ("ok", None)
    assert status.interruption is None

    text = await almagent("status", "--config", agent.config)
    assert text.code == 0
    assert max(map(len, text.out.splitlines())) <= 80
    assert re.match(rf"almagent \S+  uptodate  serving release \w{{8}} on port {port}\n", text.out)

    async with ask(agent) as session:
        async with session.get("/metrics") as answer:
            metrics = await answer.text()
        async with session.get("/healthz") as answer:
            assert (answer.status, (await answer.json())["late"]) == (200, [])
        for method, path in (("POST", "/v1/status"), ("GET", "/v1/stop"), ("GET", "/v1/reconcile")):
            async with session.request(method, path) as answer:
                assert answer.status == 405
        async with session.get("/../etc/passwd") as answer:
            assert answer.status == 404
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
    }
    assert samples["almagent_up",] == 1
    assert samples["almagent_releases_total", "active"] == 1
    for secret in (SECRET, CANARY, PASSWORD, "token-1"):
        assert secret not in raw + text.out + metrics

    _is_only_for_root(agent)
    await _an_error_shows_and_passes(agent, api)
    assert await agent.end() == 0
    assert not (agent.directory / "run" / "almagent.sock").exists()


def _is_only_for_root(agent: Agent) -> None:
    socket = agent.directory / "run" / "almagent.sock"
    mode = socket.stat()
    assert (stat.S_IMODE(mode.st_mode), mode.st_uid, mode.st_gid) == (0o660, 0, 0)
    program = (
        "import os, socket, sys\n"
        "d = os.open(sys.argv[1], os.O_PATH)\n"  # the directories above are root's own
        f"os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "try:\n"
        "    socket.socket(socket.AF_UNIX).connect(f'/proc/self/fd/{d}')\n"
        "except PermissionError:\n"
        "    sys.exit(7)\n"
    )
    command = [sys.executable, "-c", program, str(socket)]
    assert subprocess.run(command, check=False).returncode == 7


async def _an_error_shows_and_passes(agent: Agent, api: ScriptedApi) -> None:
    api.always(CONFIG, reply(503))
    await agent.until_told("error")
    status, _ = await told(agent)
    assert status.phase == "error"
    assert status.last_poll.result == "cannot fetch the document: HTTP 503"
    assert status.last_error is not None
    assert status.last_error.message == status.last_poll.result
    api.always(CONFIG, None)
    async with ask(agent) as session, session.post("/v1/reconcile") as answer:
        assert answer.status == 202
    await agent.until_told("uptodate", 2)
    status, _ = await told(agent)
    assert status.phase == "uptodate"
    assert status.last_error is not None


@pytest.mark.parametrize(
    "answer", ["{}", "[]", "<html>", '{"phase": 1, "active": 2}', "[" * 100_000]
)
@pytest.mark.parametrize("command", ["status", "stop"])
async def test_who_answers_something_else_is_no_agent(tmp_path: Path, command: str, answer: str):
    async with stranger(tmp_path, answer):
        done = await almagent(command, "--runtime-dir", tmp_path)
    assert (done.code, done.out) == (1, "")
    address = tmp_path / SOCKET
    assert done.err == f"cannot ask {address}: HTTP 200, not the answer of an agent\n"


def test_an_answer_is_expected_to_be_all_that_an_agent_tells():
    assert ANSWERS["/v1/status"] == {field.name for field in dataclasses.fields(Snapshot)}


@asynccontextmanager
async def stranger(directory: Path, body: str) -> AsyncIterator[None]:
    """Somebody else listens on the socket and gives that answer to all."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.0 200 OK\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(answer, directory / SOCKET):
        yield


async def test_settings_that_cannot_be_read_do_not_hide_what_runs(agent: Agent, tmp_path: Path):
    """Where it would be is not known then: that nobody answers elsewhere proves nothing."""
    broken = tmp_path / "broken.toml"
    broken.write_text("runtime_dir = \n")
    for config, problem in (
        (broken, f"{broken}:1: not TOML: Invalid value"),
        (tmp_path / "no", f"{tmp_path / 'no'}: cannot read: no such file"),
    ):
        status = await almagent("status", "--config", config)
        assert (status.code, status.out) == (1, "")
        assert status.err.splitlines()[0] == problem
        stopped = await almagent("stop", "--config", config)  # may be another agent that answers
        assert (stopped.code, stopped.out, stopped.err) == (2, "", f"{problem}\n")
    known = await almagent("status", "--config", broken, "--runtime-dir", tmp_path)
    assert (known.code, known.err.count("\n")) == (3, 1)


@asynccontextmanager
async def watching(
    config: Path, output: int = asyncio.subprocess.PIPE
) -> AsyncIterator[asyncio.subprocess.Process]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "almagent", "status", "--watch", "--config", str(config)),
        stdout=output,
        stderr=output,
    )
    try:
        async with asyncio.timeout(30):
            yield child
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)]
)
async def test_watch_looks_again_until_a_signal(agent: Agent, number: int, code: int):
    agent.configure()
    async with watching(agent.config) as child:
        assert child.stderr is not None
        for _ in range(2):
            assert b"not running" in await child.stderr.readline()
        child.send_signal(number)
        out, err = await child.communicate()
        assert (child.returncode, out) == (code, b"")
        assert all(b"not running" in line for line in err.splitlines())


async def test_watch_outlives_the_daemon(agent: Agent, api: ScriptedApi):
    api.document = {}
    await agent.start()
    await agent.until_told("notice")
    async with watching(agent.config) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        await child.stdout.readuntil(b"flag Web01")
        assert await agent.end() == 0
        assert b"not running" in await child.stderr.readline()
        await agent.start()
        assert agent.process is not None
        await child.stdout.readuntil(f"process {agent.process.pid}".encode())


async def test_watch_does_not_clear_what_it_has_just_said(agent: Agent):
    agent.configure()
    terminal, end = os.openpty()
    try:
        async with watching(agent.config, end):
            shown = ""
            while "almagent.sock" not in shown:
                shown += (await asyncio.to_thread(os.read, terminal, 1000)).decode()
    finally:
        os.close(terminal)
        os.close(end)
    assert shown.startswith(f"{CLEAR}almagent is not running: ")


async def test_reload_reads_the_settings_again_and_keeps_the_lock(agent: Agent, api: ScriptedApi):
    api.document = {}
    await agent.start()
    await agent.until_told("notice")
    agent.configure(deploy={"strategy": "recreate"})
    assert agent.process is not None
    os.kill(agent.process.pid, signal.SIGHUP)
    await agent.until_told("starting", 2)
    status, _ = await told(agent)
    assert (status.strategy, status.pid) == ("recreate", agent.process.pid)
