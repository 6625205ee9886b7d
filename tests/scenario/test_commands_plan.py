"""`almagent plan`: the difference without a value, the reason, the exit code, and nothing changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.peers.agent import SECRET, Agent
from tests.peers.api import CONFIG, TOKEN, ScriptedApi, reply
from tests.peers.apps import app
from tests.peers.command import almagent
from tests.peers.images import Images
from tests.peers.registry import PASSWORD, RunningRegistry
from tests.scenario.releases import document

CANARY = "canary-of-the-environment"


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files}


async def test_what_a_changed_document_would_change(
    agent: Agent, api: ScriptedApi, shared_registry: RunningRegistry, images: Images, port: int
):
    image = shared_registry.push(app(images), "plan:1")
    api.document = old = document(image, port, GONE=CANARY, KEPT=CANARY, TURNED=f"{CANARY}-1")
    await agent.start()
    await agent.until_told("uptodate")
    new = document(image.replace(":1", ":2"), port, KEPT=CANARY, TURNED=f"{CANARY}-2", NEW=CANARY)
    new |= {"updated": 8, "gitRepo": "https://github.com/x/y.git", "gitReference": "v2"}
    wanted = json.dumps({**new, "ports": [port, port + 1]}).encode()

    for daemon_runs in (True, False):
        if not daemon_runs:
            assert await agent.end() == 0
        state = contents(agent.directory / "state")
        calls = len(api.requests)
        text = await almagent("plan", "--config", agent.config, "--document", "-", stdin=wanted)
        plan = await almagent(
            "plan", "--json", "--config", agent.config, "--document", "-", stdin=wanted
        )
        assert (text.code, plan.code, text.err, plan.err) == (3, 3, "", "")
        if not daemon_runs:
            assert len(api.requests) == calls  # a given document: the API is not asked
            assert contents(agent.directory / "state") == state
        assert len(agent.containers()) == 1
        assert plan.json["variables"] == {
            "known": True,
            "added": ["NEW"],
            "changed": ["TURNED"],
            "removed": ["GONE"],
        }
        changes = {c["field"]: (c["was"], c["will_be"]) for c in plan.json["changes"]}
        assert changes == {
            "image": (old["image"], new["image"]),
            "gitRepo": ("", "https://github.com/x/y.git"),
            "gitReference": ("", "v2"),
            "ports": (str(port), f"{port}, {port + 1}"),
            "updated": ("", "8"),
        }
        assert [step["action"] for step in plan.json["steps"]][-1] == "prepare"
        assert max(map(len, text.out.splitlines())) <= 80
        for secret in (CANARY, SECRET, PASSWORD):
            assert secret not in text.out + plan.out

    same = await almagent("plan", "--config", agent.config)
    assert (same.code, same.err) == (0, "")
    assert "is active and is what the document asks for" in same.out.replace("\n", " ")
    nothing = await almagent("plan", "--config", agent.config, "--document", "-", stdin=b"{}")
    assert nothing.code == 0
    assert "nothing is defined for flag Web01" in nothing.out


async def test_a_first_release(agent: Agent):
    agent.configure()
    wanted = {"image": "registry.example.com/app:1", "environment_variables": {"TOKEN": CANARY}}
    file = agent.directory / "document.json"
    file.write_text(json.dumps(wanted))
    plan = await almagent("plan", "--config", agent.config, "--document", file)
    assert plan.code == 3
    assert "is to be started; nothing serves now" in plan.out
    assert "+TOKEN" in plan.out
    assert CANARY not in plan.out
    assert not (agent.directory / "state").exists()
    assert not (agent.directory / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "problem"),
    [
        (["--document", "-"], b'{"image": 7}', 2, "cannot use the document: image: "),
        (["--document", "-"], b"<html>", 2, "cannot use the document: "),
        (["--document", "/nowhere"], b"", 2, "/nowhere: cannot read: No such file"),
        (["--set", "flag="], b"", 2, "command line: flag: must be "),
        (["--set", "docker.host=unix:///nowhere", "--document", "-"], b"{}", 1, "cannot "),
        ([], b"", 1, "cannot fetch the document: HTTP 500"),
    ],
)
async def test_what_keeps_a_plan_from_being_made(
    agent: Agent, api: ScriptedApi, arguments: list[str], stdin: bytes, code: int, problem: str
):
    agent.configure()
    api.always(CONFIG, reply(500))
    plan = await almagent("plan", "--config", agent.config, *arguments, stdin=stdin)
    assert (plan.code, plan.out) == (code, "")
    assert plan.err.startswith(problem)
    assert plan.err.count("\n") == 1


async def test_refused_credentials(agent: Agent, api: ScriptedApi):
    agent.configure()
    api.always(TOKEN, reply(401))
    plan = await almagent("plan", "--config", agent.config)
    assert (plan.code, plan.out) == (1, "")
    assert SECRET not in plan.err
