"""`almagent doctor` on broken hosts: the right line fails, and following its fix mends it.

Most run in this process: what they look at is real all the same.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import docker
import pytest

from almagent.doctor import examine
from almagent.doctor.finding import Finding
from almagent.settings_load import load
from tests.peers.agent import SECRET, Agent
from tests.peers.api import CONFIG, TOKEN, Behaviour, ScriptedApi, reply
from tests.peers.command import almagent
from tests.peers.images import Images

IDS = [
    "settings",
    "permissions",
    "api",
    "credentials",
    "clock",
    "docker",
    "disk",
    "ports",
    "git",
    "ssh",
    "ssh-keygen",
    "nftables",
    "metadata",
    "second-agent",
    "old-agent",
]
PROGRAMS = ("git", "ssh", "ssh-keygen", "nft", "iptables")
NOBODY = 65534


def dated(skew: float) -> Behaviour:
    fields = {"token_type": "Bearer", "expires_in": 60, "access_token": "canary-token"}
    return reply(200, fields, {"Date": formatdate(time.time() + skew, usegmt=True)})


@pytest.fixture(autouse=True)
def healthy(agent: Agent, api: ScriptedApi) -> None:
    """Everything is as it should be, until the test breaks something."""
    api.always(TOKEN, dated(0))
    api.always(CONFIG, reply(200, {"image": "app:1", "ports": []}))
    agent.configure(docker={"min_free_bytes": 1})


async def findings(agent: Agent, root: Path = Path("/nowhere")) -> dict[str, Finding]:
    results = await examine(lambda: load(os.environ, config=agent.config), os.environ, root)
    assert [result.id for result in results] == IDS
    return {result.id: result.finding for result in results}


async def failed(agent: Agent, root: Path = Path("/nowhere")) -> dict[str, Finding]:
    """The lines that fail; each says what to do."""
    found = {name: f for name, f in (await findings(agent, root)).items() if f.level == "fail"}
    assert all(finding.text and finding.fix for finding in found.values())
    assert SECRET not in repr(found)
    return found


async def test_nothing_is_wrong_and_nothing_is_changed(agent: Agent):
    found = await findings(agent)
    assert {name: f for name, f in found.items() if f.level == "fail"} == {}
    assert not (agent.directory / "state").exists()
    assert not (agent.directory / "run").exists()


async def test_as_people_and_machines_read_it(agent: Agent, api: ScriptedApi):
    text = await almagent("doctor", "--config", agent.config)
    assert text.err == ""
    assert max(map(len, text.out.splitlines())) <= 80
    began = time.monotonic()
    api.always(TOKEN, reply(401))
    machine = await almagent("doctor", "--json", "--config", agent.config)
    assert time.monotonic() - began < 10
    assert machine.code == 1
    checks = machine.json["checks"]
    assert [check["id"] for check in checks] == IDS
    assert all(set(check) == {"id", "level", "text", "fix"} for check in checks)
    assert all(check["level"] in {"ok", "warn", "fail"} for check in checks)
    assert [check["id"] for check in checks if check["level"] == "fail"] == ["credentials"]
    for secret in (SECRET, "canary-token"):
        assert secret not in text.out + machine.out


async def test_no_docker(agent: Agent):
    agent.configure(docker={"host": "unix:///nowhere/docker.sock"})
    assert list(await failed(agent)) == ["docker"]


async def test_wrong_secret(agent: Agent, api: ScriptedApi):
    api.always(TOKEN, reply(401))
    found = await failed(agent)
    assert list(found) == ["credentials"]
    assert "refused" in found["credentials"].text


@pytest.mark.parametrize(
    "answer", [pytest.param(reply(404), id="another site"), pytest.param(None, id="nobody there")]
)
async def test_wrong_url(agent: Agent, api: ScriptedApi, answer: Behaviour | None):
    if answer is None:
        agent.configure(api={"url": "http://127.0.0.1:1"})
    else:
        api.always(TOKEN, answer)
    assert list(await failed(agent)) == ["api"]


async def test_clock_ten_minutes_off(agent: Agent, api: ScriptedApi):
    api.always(TOKEN, dated(600))
    found = await failed(agent)
    assert list(found) == ["clock"]
    assert re.fullmatch(r"(599|600) s behind the API", found["clock"].text)


@contextmanager
def without(program: str, directory: Path) -> Iterator[None]:
    """A PATH that has every program we run, but for this one."""
    directory.mkdir()
    for name in set(PROGRAMS) - {program}:
        (directory / name).symlink_to(shutil.which(name) or f"/usr/sbin/{name}")
    before = os.environ["PATH"]
    os.environ["PATH"] = str(directory)
    try:
        yield
    finally:
        os.environ["PATH"] = before


@pytest.mark.parametrize(
    ("program", "line"),
    [("git", "git"), ("ssh", "ssh"), ("ssh-keygen", "ssh-keygen"), ("nft", "nftables")],
)
async def test_a_program_is_missing(agent: Agent, tmp_path: Path, program: str, line: str):
    with without(program, tmp_path / "bin"):
        found = await failed(agent)
    assert list(found) == [line]
    assert "install" in found[line].fix


async def test_disk_full(agent: Agent):
    agent.configure(docker={"min_free_bytes": 2**60})
    assert list(await failed(agent)) == ["disk"]


async def test_unreadable_settings(agent: Agent):
    agent.config.unlink()
    agent.config.mkdir()
    found = await findings(agent)
    assert found["settings"].level == "fail"
    assert str(agent.config) in found["settings"].text
    assert found["api"].level == "warn"
    assert found["git"].level == "ok"


async def test_settings_open_to_others_and_the_fix(agent: Agent):
    agent.config.chmod(0o644)
    found = await failed(agent)
    assert list(found) == ["permissions"]
    subprocess.run(found["permissions"].fix, shell=True, check=True)
    assert await failed(agent) == {}


async def test_no_permission(agent: Agent):
    await findings(agent)  # all modules are loaded now: nobody else may read where they are
    os.seteuid(NOBODY)
    try:
        found = await failed(agent)
    finally:
        os.seteuid(0)
    assert {"settings", "permissions", "docker"} <= found.keys()
    assert "sudo" in found["permissions"].fix


async def test_port_taken(agent: Agent, api: ScriptedApi, port: int):
    api.always(CONFIG, reply(200, {"image": "app:1", "ports": [port]}))
    with socket.create_server(("127.0.0.1", port)):
        found = await failed(agent)
    assert list(found) == ["ports"]
    assert str(port) in found["ports"].text
    assert str(port) in found["ports"].fix
    assert await failed(agent) == {}


async def test_metadata_blocked(agent: Agent):
    agent.configure(cloud={"provider": "aws", "endpoint": "http://127.0.0.1:1"})
    assert list(await failed(agent)) == ["metadata"]


async def test_a_cloud_whose_metadata_is_blocked_is_known_by_its_firmware(
    agent: Agent, tmp_path: Path
):
    agent.configure(cloud={"provider": "auto", "endpoint": "http://127.0.0.1:1"})
    firmware = tmp_path / "root/sys/class/dmi/id"
    firmware.mkdir(parents=True)
    assert await failed(agent, tmp_path / "root") == {}
    (firmware / "sys_vendor").write_text("Amazon EC2\n")
    assert list(await failed(agent, tmp_path / "root")) == ["metadata"]


async def test_somebody_holds_the_lock(agent: Agent, tmp_path: Path):
    root = tmp_path / "root"
    lock = agent.directory / "run" / "almagent.lock"
    lock.parent.mkdir()
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f"{os.getpid()}\n")
        file.flush()
        found = await failed(agent)
        cgroup = root / f"proc/{os.getpid()}/cgroup"
        cgroup.parent.mkdir(parents=True)
        cgroup.write_text("0::/system.slice/my-agent.service\n")
        service = await failed(agent, root)
        cgroup.write_text("0::/user.slice/user-0.slice/user@0.service/init.scope\n")
        login = await failed(agent, root)
    assert list(found) == ["second-agent"]
    assert str(os.getpid()) in found["second-agent"].text
    assert service["second-agent"].fix == "end it: systemctl stop my-agent.service"
    assert login == found
    assert await failed(agent) == {}


async def test_an_agent_that_is_frozen_and_the_fix(agent: Agent, api: ScriptedApi):
    api.always(TOKEN, None)
    await agent.start()
    await agent.until_told("error")  # as below
    assert agent.process is not None
    agent.process.send_signal(signal.SIGSTOP)
    found = await failed(agent)
    assert list(found) == ["second-agent"]
    assert found["second-agent"].text.endswith("almagent.lock, but does not answer")
    subprocess.run(found["second-agent"].fix.removeprefix("end it: "), shell=True, check=True)
    await agent.process.wait()
    assert await failed(agent) == {}


async def test_a_second_agent_for_the_same_stack_and_flag(
    agent: Agent, api: ScriptedApi, tmp_path: Path
):
    api.always(TOKEN, None)
    await agent.start()
    await agent.until_told("error")  # app:1 cannot be pulled; that is another matter
    assert await failed(agent) == {}
    assert "is this agent, phase" in (await findings(agent))["second-agent"].text
    other = Agent(tmp_path / "other", agent.api, agent.stack_id, agent.engine)
    other.directory.mkdir()
    other.configure(docker={"min_free_bytes": 1})
    found = await failed(other)
    assert list(found) == ["second-agent"]
    assert agent.process is not None
    assert str(agent.process.pid) in found["second-agent"].fix


async def test_the_original_agent(
    agent: Agent, tmp_path: Path, docker_api: docker.APIClient, images: Images
):
    root = tmp_path / "root"
    (root / "opt/mobingi/etc").mkdir(parents=True)
    (root / "opt/mobingi/etc/alm-agent.cfg").write_text("{}")
    assert await failed(agent, root) == {}

    crontab = root / "var/spool/cron/crontabs/root"
    crontab.parent.mkdir(parents=True)
    crontab.write_text("* * * * * PATH=/sbin /opt/mobingi/alm-agent/current/alm-agent -U ensure\n")
    found = await failed(agent, root)
    assert list(found) == ["old-agent"]
    assert str(crontab) in found["old-agent"].fix
    crontab.write_text("# alm-agent was here\n")
    assert await failed(agent, root) == {}

    image = images.make('CMD ["sleep", "60"]')
    left = docker_api.create_container(image, name="standby")["Id"]
    try:
        found = await findings(agent, root)
        assert found["old-agent"].level == "warn"
        docker_api.start(left)
        found = await failed(agent, root)
        assert "container standby runs" in found["old-agent"].text
        assert "docker rm -f standby" in found["old-agent"].fix
    finally:
        docker_api.remove_container(left, force=True)


async def test_a_rule_of_the_original_agent(agent: Agent, port: int):
    rule = f"DOCKER ! -i docker0 -p tcp --dport {port} -j DNAT --to-destination 192.0.2.1:{port}"
    subprocess.run(f"iptables -w -t nat -A {rule}", shell=True, check=True)
    try:
        found = (await findings(agent))["old-agent"]
        assert found.level == "warn"
        assert f"iptables rule for port {port}" in found.text
        (fix,) = [step for step in found.fix.split("; then ") if str(port) in step]
        subprocess.run(fix, shell=True, check=True)
        assert str(port) not in (await findings(agent))["old-agent"].text
    except BaseException:
        subprocess.run(f"iptables -w -t nat -D {rule}", shell=True, check=False)
        raise
