"""What lasts: the state file over restarts, the master account's credentials, the process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from contextlib import asynccontextmanager

import pytest

from almagent.controlplane.server import ControlPlaneServer
from almagent.controlplane.store import CannotOpen, Store
from almagent.controlplane.store.accounts import User
from tests.peers.controlplane import running_control_plane

TEMPLATE = {"configurations": [{"flag": "Web01", "container": {"image": "x"}}]}


async def test_everything_is_there_after_a_restart(tmp_path):
    async with running_control_plane(tmp_path) as api:
        agent = await api.agent(TEMPLATE)
        stack_id = agent.stack.stack_id
        said = {"stack_id": stack_id, "agent_id": "a", "status": "starting"}
        await agent.status("agent_status", said)
        document = await agent.config("Web01")
        token, stack = api.token, (await api.get(f"/v3/alm/stack/{stack_id}")).json
    async with running_control_plane(tmp_path) as api:
        assert (await api.get(f"/v3/alm/stack/{stack_id}", token=token)).json == stack
        (kept,) = api.server.store.statuses.of(stack_id)
        assert kept.report.status == "starting"
        again = await api.get(
            "/v3/alm/agent/config", token=agent.token, stack_id=stack_id, flag="Web01"
        )
        assert (again.body, again.headers["ETag"]) == (document.body, document.headers["ETag"])


def log_in(store: Store) -> User:
    login = json.loads(store.login_file.read_text())
    login.pop("grant_type")
    return store.accounts.log_in(**login)


def test_the_master_account_keeps_its_credentials_until_their_file_is_removed(tmp_path):
    state = tmp_path / "state.db"
    seen = []
    for remove in (False, True, False):
        store = Store(state)
        assert log_in(store).master
        seen.append(store.login_file.read_text())
        store.close()
        if remove:
            store.login_file.unlink()
    assert seen[0] == seen[1] != seen[2]


def test_a_login_file_without_its_state_is_replaced(tmp_path):
    state = tmp_path / "state.db"
    Store(state).close()
    state.unlink()
    store = Store(state)
    assert log_in(store).master
    store.close()


def test_the_state_file_is_made_private(tmp_path):
    state = tmp_path / "state.db"
    state.touch(0o644)
    Store(state).close()
    assert state.stat().st_mode & 0o777 == 0o600
    assert {one.name for one in tmp_path.iterdir()} == {"state.db", "state.db.login.json"}


def newer(path):
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


@pytest.mark.parametrize(
    "spoil",
    [newer, lambda path: path.write_text("no database at all" * 100), lambda path: path.mkdir()],
    ids=["newer", "junk", "directory"],
)
async def test_a_state_file_that_cannot_be_used_is_refused_and_kept(tmp_path, spoil):
    state = tmp_path / "state.db"
    spoil(state)
    before = state.read_bytes() if state.is_file() else b""
    with pytest.raises(CannotOpen, match=r"cannot open .*state\.db: "):
        async with ControlPlaneServer(state):
            pass
    assert (state.read_bytes() if state.is_file() else b"") == before


@asynccontextmanager
async def process(*arguments):
    """The command in a process of its own, killed at the end if it has not ended."""
    program = (
        "import argparse, sys; from almagent.commands import controlplane as command;"
        "parser = argparse.ArgumentParser(); command.add_arguments(parser);"
        "sys.exit(command.run(parser.parse_args()))"
    )
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(os.environ),
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_serves_tells_how_to_log_in_and_ends_well(tmp_path, number):
    state = tmp_path / "a state.db"
    async with process("--listen", "127.0.0.1:0", "--state", str(state)) as child:
        explained = b""
        while b"Ctrl-C" not in explained:
            line = await asyncio.wait_for(child.stdout.readline(), 20)
            assert line, (await child.stderr.read()).decode()
            explained += line
        lines = explained.decode().splitlines()
        start = next(at for at, line in enumerate(lines) if line.startswith("  TOKEN="))
        script = "\n".join([*lines[start : start + 2], 'printf %s "$TOKEN"'])
        shell = await asyncio.create_subprocess_exec(
            "sh", "-c", script, stdout=asyncio.subprocess.PIPE
        )
        token, _ = await asyncio.wait_for(shell.communicate(), 20)
        assert len(token) == 43
        login = json.loads((tmp_path / "a state.db.login.json").read_text())
        assert login["password"] not in explained.decode()
        child.send_signal(number)
        _, errors = await asyncio.wait_for(child.communicate(), 10)
        assert (child.returncode, errors) == (0, b"")


async def test_the_command_says_in_one_line_why_it_cannot_serve(tmp_path):
    async with running_control_plane(tmp_path) as api:
        address = api.server.url.removeprefix("http://")
        async with process("--listen", address, "--state", str(tmp_path / "b.db")) as child:
            _, errors = await asyncio.wait_for(child.communicate(), 20)
            assert child.returncode == 1
            assert errors.decode() == f"cannot listen on {address}: address already in use\n"
    async with process("--listen", "8080") as child:
        await asyncio.wait_for(child.communicate(), 20)
        assert child.returncode == 2
