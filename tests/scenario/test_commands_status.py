"""`almagent status` and the socket it asks, with the real daemon and a real deployment."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import subprocess
import sys

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from pydantic import TypeAdapter

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
        sample.name: sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
    }
    assert samples["almagent_up"] == 1
    assert samples["almagent_releases_total"] == 1
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


async def test_watch_looks_again_until_interrupted(agent: Agent):
    agent.configure()
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "almagent", "status", "--watch", "--config", str(agent.config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert child.stderr is not None
    async with asyncio.timeout(20):
        for _ in range(2):
            assert b"not running" in await child.stderr.readline()
        child.send_signal(signal.SIGINT)
        assert await child.wait() == 0


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
