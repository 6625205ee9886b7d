"""`almagent register`: settings from everywhere, proved before they are written, or nothing at all."""

from __future__ import annotations

import json
import stat
import tomllib
from pathlib import Path

import pytest

from tests.peers.api import CONFIG, STATUSES, TOKEN, Behaviour, ScriptedApi, reply
from tests.peers.command import Done, almagent

SECRET = "canary-client-secret"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "etc" / "agent.toml"


@pytest.fixture
def common(api: ScriptedApi, file: Path, tmp_path: Path) -> list[str]:
    return [
        *("register", "--config", str(file), "--url", api.url, "--set", "cloud.provider=none"),
        *("--state-dir", str(tmp_path / "state"), "--runtime-dir", str(tmp_path / "run")),
    ]


def check_registered(done: Done, api: ScriptedApi, file: Path) -> dict[str, object]:
    assert (done.code, done.err) == (0, "")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]
    assert SECRET not in done.out
    paths = [request.path for request in api.requests]
    assert paths[0] == TOKEN
    assert [r.json["status"] for r in api.asked(*STATUSES)][-1] == "starting"
    return tomllib.loads(file.read_text())


async def test_from_flags_with_the_secret_on_stdin(
    api: ScriptedApi, file: Path, common: list[str], tmp_path: Path
):
    done = await almagent(
        *common, "--stack-id", "mo-1", "--flag", "Web01", "--user-id", "u", stdin=SECRET.encode()
    )
    assert check_registered(done, api, file) == {
        "stack_id": "mo-1",
        "flag": "Web01",
        "user_id": "u",
        "state_dir": str(tmp_path / "state"),
        "runtime_dir": str(tmp_path / "run"),
        "api": {"url": api.url, "client_secret": SECRET},
        "cloud": {"provider": "none"},
    }
    said = api.asked(*STATUSES)[0].json
    assert said["agent_id"] == (tmp_path / "state" / "agent_id").read_text().strip()
    assert said["agent_id"] in done.out

    again = await almagent(
        *common, "--stack-id", "mo-1", "--flag", "Web01", "--user-id", "u", stdin=SECRET.encode()
    )
    check_registered(again, api, file)
    other = await almagent(*common, "--stack-id", "mo-2", "--flag", "W", stdin=SECRET.encode())
    assert other.code == 2
    assert "--force" in other.err
    assert tomllib.loads(file.read_text())["stack_id"] == "mo-1"
    forced = await almagent(
        *common, "--stack-id", "mo-2", "--flag", "W", "--force", stdin=SECRET.encode()
    )
    assert check_registered(forced, api, file)["stack_id"] == "mo-2"


async def test_from_the_environment_and_a_secret_file(
    api: ScriptedApi, file: Path, common: list[str], tmp_path: Path
):
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    secret.chmod(0o600)
    env = {"ALMAGENT_STACK_ID": "mo-3", "ALMAGENT_FLAG": "Web01"}
    done = await almagent(*common, "--client-secret-file", secret, env=env)
    written = check_registered(done, api, file)
    assert written["stack_id"] == "mo-3"
    assert written["api"] == {"url": api.url, "client_secret_file": str(secret)}
    assert SECRET not in file.read_text()


async def test_from_the_original_agents_file_on_stdin(
    api: ScriptedApi, file: Path, common: list[str]
):
    fields = {"StackId": "mo-4", "Flag": "Web01", "AuthorizationToken": SECRET, "APIHost": api.url}
    done = await almagent(*common, "--from", "-", stdin=json.dumps(fields).encode())
    written = check_registered(done, api, file)
    assert (written["stack_id"], written["flag"]) == ("mo-4", "Web01")


@pytest.mark.parametrize(
    ("path", "answer", "problem"),
    [
        pytest.param(
            TOKEN, reply(401), "cannot log in: the client secret was refused", id="secret"
        ),
        pytest.param(CONFIG, reply(500), "cannot fetch the document: HTTP 500", id="no document"),
        pytest.param(STATUSES[0], reply(503), "cannot report starting: HTTP 503", id="no report"),
    ],
)
async def test_what_is_not_proved_is_not_written(
    api: ScriptedApi, file: Path, common: list[str], path: str, answer: Behaviour, problem: str
):
    api.always(path, answer)
    done = await almagent(*common, "--stack-id", "s", "--flag", "f", stdin=SECRET.encode())
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(problem)
    assert not file.parent.exists()


@pytest.mark.parametrize(
    ("arguments", "stdin", "problem"),
    [
        pytest.param(["--flag", "f"], SECRET, "{file}: stack_id: missing", id="no stack"),
        pytest.param(
            ["--stack-id", "s", "--flag", "f"], "", "{file}: api.client_secret", id="no secret"
        ),
        pytest.param(
            ["--stack-id", "s", "--flag", "f", "--set", f"api.client_secret={SECRET}"],
            "",
            "command line: api.client_secret: not taken from here",
            id="secret for all to see",
        ),
        pytest.param(["--from", "/nowhere"], "", "/nowhere: cannot read", id="no such file"),
        pytest.param(["--from", "-"], "=", "stdin:1: not TOML: ", id="broken stdin"),
        pytest.param(["--from", "-"], '{"Falg": 1}', "stdin: Falg: unknown key", id="unknown key"),
    ],
)
async def test_what_cannot_be_used(
    api: ScriptedApi, file: Path, common: list[str], arguments: list[str], stdin: str, problem: str
):
    done = await almagent(*common, *arguments, stdin=stdin.encode())
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(problem.format(file=file))
    assert SECRET not in done.err
    assert not file.exists()
    assert api.requests == []


async def test_a_directory_is_no_settings_file(api: ScriptedApi, common: list[str], tmp_path: Path):
    arguments = ["--config", str(tmp_path), "--stack-id", "s", "--flag", "f", "--force"]
    done = await almagent(*common, *arguments, stdin=SECRET.encode())
    assert (done.code, done.out) == (2, "")
    assert done.err == f"{tmp_path}: is a directory; it must be the name of a file\n"
    assert api.requests == []
