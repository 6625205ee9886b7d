"""`almagent doctor` on broken hosts: the right line fails, and following its fix mends it.

Most run in this process: what they look at is real all the same.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

import docker
import pytest

from almagent.commands.doctor import describe
from almagent.doctor import Result, examine
from almagent.doctor.engine import LEAST
from almagent.doctor.finding import Finding, fail
from almagent.original import SHUTDOWN
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
    "document",
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
    results = await examine(lambda: load(os.environ, config=agent.config), agent.config, root)
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
    found = await failed(agent)
    assert list(found) == ["docker"]
    assert "systemctl enable --now docker" in found["docker"].fix


async def test_docker_is_masked(agent: Agent, tmp_path: Path):
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    (units / "docker.socket").symlink_to("/dev/null")
    agent.configure(docker={"host": "unix:///nowhere/docker.sock"})
    fix = (await failed(agent, tmp_path))["docker"].fix
    assert "systemctl unmask docker.socket; systemctl enable --now docker" in fix


async def test_something_else_than_docker(agent: Agent, api: ScriptedApi):
    agent.configure(docker={"host": f"tcp://127.0.0.1:{api.port}"})
    found = (await failed(agent))["docker"]
    host = f"tcp://127.0.0.1:{api.port}"
    assert found.text == f"what listens on {host} does not answer as a Docker engine"
    assert found.fix == f"systemctl restart docker; or correct docker.host, which is {host}"


@pytest.mark.parametrize(
    "said",
    [b"HTTP/1.0 404 Not Found\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n<html>", b"SSH-2.0\r\n", b""],
)
async def test_something_else_than_docker_on_the_socket(agent: Agent, tmp_path: Path, said: bytes):
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    host = f"unix://{tmp_path}/docker.sock"
    agent.configure(docker={"host": host})
    async with await asyncio.start_unix_server(answer, tmp_path / "docker.sock"):
        found = (await failed(agent))["docker"]
    assert found.text == f"what listens on {host} does not answer as a Docker engine"


async def test_docker_hangs(agent: Agent, tmp_path: Path):
    path = tmp_path / "docker.sock"
    agent.configure(docker={"host": f"unix://{path}"})
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        found = (await failed(agent))["docker"]
    assert "does not answer within" in found.text
    assert found.fix.startswith("systemctl restart docker; ")


async def test_wrong_secret(agent: Agent, api: ScriptedApi):
    api.always(TOKEN, reply(401))
    found = await failed(agent)
    assert list(found) == ["credentials"]
    assert "refused" in found["credentials"].text
    assert f"from {agent.config}: api.client_secret" in found["credentials"].text


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(reply(404), id="another site"),
        pytest.param(reply(200, "<html>"), id="a site that takes everything"),
        pytest.param(reply(200, {"hello": "world"}), id="no token"),
        pytest.param(None, id="nobody there"),
    ],
)
async def test_wrong_url(agent: Agent, api: ScriptedApi, answer: Behaviour | None):
    if answer is None:
        agent.configure(api={"url": "http://127.0.0.1:1"})
    else:
        api.always(TOKEN, answer)
    found = await findings(agent)
    assert [name for name, f in found.items() if f.level == "fail"] == ["api"]
    assert found["credentials"].fix == found["document"].fix == "see the line api"


async def test_asked_too_often(agent: Agent, api: ScriptedApi):
    api.always(TOKEN, reply(429))
    found = await findings(agent)
    assert "fail" not in {finding.level for finding in found.values()}
    assert "too often" in found["credentials"].text
    assert found["document"].fix == "see the line credentials"


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_ca_file_that_cannot_be_used(agent: Agent, tmp_path: Path, content: str | None):
    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content)
    agent.configure(api={"ca_file": str(file)})
    found = await failed(agent)
    assert list(found) == ["api"]
    assert "api.ca_file" in found["api"].fix


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (reply(403), "HTTP 403"),
        (reply(404), "HTTP 404"),
        (reply(500), "HTTP 500"),
        (reply(200, "<html>"), "not JSON"),
        (reply(200, {"ports": [80]}), "image: is required"),
    ],
)
async def test_no_usable_document(agent: Agent, api: ScriptedApi, answer: Behaviour, told: str):
    api.always(CONFIG, answer)
    found = await failed(agent)
    assert list(found) == ["document"]
    assert told in found["document"].text


async def test_the_document(agent: Agent, api: ScriptedApi):
    assert (await findings(agent))["document"].text == "asks for app:1"
    assert len(api.asked(TOKEN, CONFIG)) == 2
    api.always(CONFIG, reply(200, {}))
    found = (await findings(agent))["document"]
    assert found.level == "warn"
    assert found.text == f"nothing is defined for flag {agent.flag} of stack {agent.stack_id}"
    api.always(TOKEN, reply(401))
    found = (await findings(agent))["document"]
    assert (found.level, found.fix) == ("warn", "see the line credentials")


async def test_clock_ten_minutes_off(agent: Agent, api: ScriptedApi):
    api.always(TOKEN, dated(600))
    found = await failed(agent)
    assert list(found) == ["clock"]
    assert re.fullmatch(r"(599|600) s behind the API", found["clock"].text)


async def test_what_keeps_the_time_is_left_to_do_it(agent: Agent, api: ScriptedApi, tmp_path: Path):
    """On Debian one such program replaces the other, and the servers that it was given are lost."""
    api.always(TOKEN, dated(600))
    with without("nothing", tmp_path / "bin"):
        there = tmp_path / "bin"
        (there / "apt-get").symlink_to("/bin/true")
        fix = (await failed(agent))["clock"].fix
        assert "install -y systemd-timesyncd; systemctl enable --now systemd-timesyncd" in fix
        unit = tmp_path / "root/usr/lib/systemd/system/chrony.service"
        unit.parent.mkdir(parents=True)
        unit.touch()
        fix = (await failed(agent, tmp_path / "root"))["clock"].fix
        assert fix.startswith("systemctl restart chrony;")


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
        assert found[line].fix.startswith("dnf install -y ")
        (tmp_path / "bin/apt-get").symlink_to("/bin/true")
        fix = (await failed(agent))[line].fix
        assert fix.startswith("apt-get update; apt-get install -y ")
        subprocess.run(fix.partition("; or ")[0], shell=True, check=True)
        (tmp_path / "bin/dpkg-query").write_text("#!/bin/sh\necho -n unpacked\n")
        (tmp_path / "bin/dpkg-query").chmod(0o755)
        fix = (await failed(agent))[line].fix
        assert fix.startswith("apt-get update; apt-get install -f -y --no-remove; apt-get")


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo oops; exit 127", "git --version ends with exit code 127: oops"),
        ("sleep 60", "git --version does not end within 4 s"),
    ],
)
async def test_a_program_that_does_not_work(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, told: str
):
    program = tmp_path / "bin/git"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    found = await failed(agent)
    assert list(found) == ["git"]
    assert found["git"].text == told
    assert str(program) in found["git"].fix


async def test_disk_full(agent: Agent):
    agent.configure(docker={"min_free_bytes": 2**60})
    assert list(await failed(agent)) == ["disk"]


@pytest.mark.parametrize("least", [0, 1])
async def test_no_room_for_the_state(agent: Agent, least: int):
    agent.configure(docker={"min_free_bytes": least})
    with agent.small_disk(2 * LEAST >> 20) as state:
        assert await failed(agent) == {}
        (state / "filler").write_bytes(b"x" * (LEAST + 1))
        found = await failed(agent)
        (state / "filler").unlink()
    assert list(found) == ["disk"]
    assert f"7 MiB free at {state}" in found["disk"].text
    assert "the agent itself needs 8 MiB" in found["disk"].text


async def test_state_on_a_read_only_disk_and_the_fix(agent: Agent):
    with agent.small_disk(64) as state:
        subprocess.run(["mount", "-o", "remount,ro", state], check=True)
        found = await failed(agent)
        subprocess.run(found["permissions"].fix.split("; or ")[0], shell=True, check=True)
        assert await failed(agent) == {}
    assert list(found) == ["permissions"]
    assert found["permissions"].text == f"state_dir: {state} is on a read-only file system"


@pytest.mark.parametrize("name", ["state", "run"])
async def test_a_directory_below_a_file_and_the_fix(agent: Agent, tmp_path: Path, name: str):
    directory = tmp_path / "a file" / "below"
    (tmp_path / "a file").touch()
    agent.config.write_text(
        agent.config.read_text().replace(str(agent.directory / name), str(directory))
    )
    found = await failed(agent)
    assert list(found) == ["permissions"]
    assert "is not a directory" in found["permissions"].text
    subprocess.run(found["permissions"].fix.split("; or ")[0], shell=True, check=True)
    assert await failed(agent) == {}


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


async def test_a_path_with_a_space_in_it(
    agent: Agent, api: ScriptedApi, docker_api: docker.APIClient, tmp_path: Path
):
    spaced = Agent(tmp_path / "a b", api, agent.stack_id, docker_api)
    spaced.directory.mkdir()
    spaced.configure()
    spaced.config.chmod(0o644)
    subprocess.run((await failed(spaced))["permissions"].fix, shell=True, check=True)
    assert await failed(spaced) == {}


async def test_broken_settings_open_to_others(agent: Agent):
    agent.config.write_text("[")
    agent.config.chmod(0o644)
    found = await failed(agent)
    assert list(found) == ["settings", "permissions"]
    anew = f"almagent register --force --url URL --stack-id ID --flag FLAG --config {agent.config};"
    assert anew in found["settings"].fix
    subprocess.run(found["permissions"].fix, shell=True, check=True)
    told = (await findings(agent))["permissions"].text
    assert told == f"root, and nobody else can read {agent.config}"


async def test_no_permission(agent: Agent):
    await findings(agent)  # all modules are loaded now: nobody else may read where they are
    os.seteuid(NOBODY)
    try:
        found = await failed(agent)
    finally:
        os.seteuid(0)
    assert {"settings", "permissions", "docker"} <= found.keys()
    again = f"sudo {sys.executable} -m almagent doctor --config {agent.config}"
    assert found["permissions"].fix == again
    assert found["docker"].fix.startswith(found["permissions"].fix)


async def test_port_taken(agent: Agent, api: ScriptedApi, port: int):
    api.always(CONFIG, reply(200, {"image": "app:1", "ports": [port]}))
    with socket.create_server(("127.0.0.1", port)):
        found = await failed(agent)
    assert list(found) == ["ports"]
    assert str(port) in found["ports"].text
    assert str(port) in found["ports"].fix
    assert await failed(agent) == {}


async def test_metrics_taken(agent: Agent, api: ScriptedApi, port: int):
    agent.configure(metrics={"listen": f"127.0.0.1:{port}"})
    with socket.create_server(("127.0.0.1", port)):
        found = (await findings(agent))["ports"]
    assert found.level == "warn"
    assert f"127.0.0.1:{port} is taken by " in found.text
    assert "metrics.listen" in found.fix
    api.always(TOKEN, None)
    await agent.start()
    await agent.until_told("error")  # as below
    assert (await findings(agent))["ports"].level == "ok"


async def test_metadata_blocked(agent: Agent):
    agent.configure(cloud={"provider": "aws", "endpoint": "http://127.0.0.1:1"})
    found = await failed(agent)
    assert list(found) == ["metadata"]
    assert found["metadata"].text.endswith(": Connection refused")
    assert "cloud.endpoint" in found["metadata"].fix


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
    script = root / SHUTDOWN.lstrip("/")
    script.parent.mkdir(parents=True)
    script.write_text("docker stop $(docker ps -q)\n")
    unlink = "update-rc.d -f stop-alm-agent.sh remove; then " if shutil.which("update-rc.d") else ""
    assert (await failed(agent, root))["old-agent"].fix == f"{unlink}rm {SHUTDOWN}"
    script.unlink()

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


def test_a_fix_is_broken_between_its_commands_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    long = f"docker rm -f {'x' * 80}"
    steps = ["sed -i /alm-agent/d /etc/crontab", "systemctl stop alm-agent", long, "true"]
    text = describe([Result("old-agent", fail("it runs", "; then ".join(steps)))])
    assert text.splitlines()[1:] == [
        f"{'':17}-> {steps[0]};",
        f"{'':20}{steps[1]};",
        f"{'':20}{long};",
        f"{'':20}true",
    ]
