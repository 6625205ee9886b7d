"""What a container made by the Docker adapter looks like from inside and to Docker."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import docker
import pytest

from almagent.adapters.docker_engine.network import candidates, host_routes
from almagent.adapters.docker_engine.observe import status_word
from almagent.adapters.engine import DockerEngine
from almagent.core.model import Secret, Spec, State
from almagent.ports import Refused
from tests.peers.engine_world import Docker, What, docker_around, publish, release
from tests.peers.images import root_file_system

VALUES = {
    "QUOTES": 'it\'s "so"',
    "LINES": "one\ntwo\r\nthree\n",
    "EQUALS": "a=b==c",
    "DOLLARS": "$HOME ${PATH} $(id) `id`",
    "UNICODE": "zażółć 日本語 🚀",
    "SPACES": "  \t around  ",
    "EMPTY": "",
    "BACKSLASH": "C:\\n\\x00",
    "odd.name-1": "x",
}


@pytest.fixture
async def around(
    docker_api: docker.APIClient, stack_id: str, tmp_path: Path
) -> AsyncIterator[Docker]:
    async with docker_around(docker_api, stack_id, tmp_path) as around:
        yield around


async def make(
    around: Docker,
    engine: DockerEngine,
    environment: dict[str, str] | None = None,
    *,
    publish_ports: bool = False,
    start: bool = False,
    **changes: Any,
) -> dict[str, Any]:
    """What Docker says of a new container."""
    reference = publish(around.registry, "app:1", What())
    image = await engine.pull(reference, None)
    values = {name: Secret(text) for name, text in (environment or {}).items()}
    wanted = release(image.id, reference, image_digest=image.digest, **changes)
    container_id = await engine.create(Spec("r", reference, values), wanted, publish=publish_ports)
    if start:
        await engine.start(container_id)
    described: dict[str, Any] = around.api.inspect_container(container_id)
    return described


async def test_values_arrive_byte_for_byte(around: Docker):
    made = await make(around, around.make(), VALUES, start=True)
    raw = Path(f"/proc/{made['State']['Pid']}/environ").read_bytes().split(b"\0")
    for name, value in VALUES.items():
        assert f"{name}={value}".encode() in raw


async def test_the_agents_own_variables_win(around: Docker):
    theirs = {"MO_USER_ID": "theirs", "MO_STACK_ID": "theirs"}
    made = await make(around, around.make(), theirs)
    assert f"MO_STACK_ID={around.stack_id}" in made["Config"]["Env"]
    assert "MO_USER_ID=5447820c870e1" in made["Config"]["Env"]
    assert not any("theirs" in one for one in made["Config"]["Env"])


async def test_docker_is_told_what_the_contract_says(around: Docker):
    made = await make(around, around.make(), commit="c0ffee", ports=(80, 443))
    labels = {n: v for n, v in made["Config"]["Labels"].items() if n.startswith("almagent.")}
    assert labels == {
        "almagent.stack": around.stack_id,
        "almagent.flag": "Web01",
        "almagent.revision": "0123456789abcdef",
        "almagent.commit": "c0ffee",
        "almagent.image": around.registry.reference("app:1"),
        "almagent.digest": around.registry.digest_of("app:1"),
        "almagent.ports": "80,443",
    }
    host = made["HostConfig"]
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}
    assert host["RestartPolicy"]["Name"] == "no"
    assert (host["Privileged"], host["PidMode"], host["Binds"]) == (False, "", None)
    assert made["Config"]["Image"] == made["Image"]


async def test_ports_are_bound_on_every_address_of_the_host(around: Docker):
    made = await make(around, around.make(), publish_ports=True)
    everywhere = {"HostIp": "0.0.0.0", "HostPort": "80"}
    assert made["HostConfig"]["PortBindings"] == {"80/tcp": [everywhere]}


async def test_behind_the_router_ports_have_doors_on_the_gateway(around: Docker):
    engine = around.make()
    made = await make(around, engine, ports=(80, 443), start=True)
    (network,) = made["NetworkSettings"]["Networks"].values()
    door = {"HostIp": network["Gateway"], "HostPort": ""}
    assert made["HostConfig"]["PortBindings"] == {"80/tcp": [door], "443/tcp": [door]}
    (seen,) = await engine.observe()
    assert set(seen.doors) == {80, 443}
    assert {door.partition(":")[0] for door in seen.doors.values()} == {network["Gateway"]}


async def test_code_init_script_and_logs_are_mounted(around: Docker, tmp_path: Path):
    code = tmp_path / "code"
    code.mkdir()
    (code / "mobingi-init.sh").write_text("#!/bin/sh\necho ready > /var/log/container_status\n")
    (code / "mobingi-init.sh").chmod(0o755)
    engine = around.make()
    made = await make(
        around,
        engine,
        start=True,
        code_path=str(code),
        code_dir="/var/www/html",
        init_script=str(code / "mobingi-init.sh"),
    )
    assert await engine.run_hook(made["Id"], "/tmp/init/init.sh", 5) == ""
    (seen,) = await engine.observe()
    assert seen.status_word == "ready"
    mounts = {mount["Destination"]: mount for mount in made["Mounts"]}
    assert mounts["/var/www/html"]["RW"]
    assert not mounts["/tmp/init/init.sh"]["RW"]
    logs = Path(mounts["/var/log"]["Source"])
    assert logs == around.state_dir / "Web01" / "logs" / seen.name
    assert stat.S_IMODE(logs.stat().st_mode) == 0o1777
    await engine.remove(made["Id"])
    assert not logs.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"code_path": "/nonexistent", "code_dir": "/srv"},
        {"code_path": "/etc/hostname", "code_dir": "/srv"},
        {"code_path": "/proc/self", "code_dir": "/srv"},  # a link
        {"code_path": "/srv", "code_dir": "relative"},
        {"code_path": "/srv", "code_dir": "/srv/../etc"},
        {"code_path": "/srv", "code_dir": "/"},
        {"code_path": "/srv", "code_dir": "/proc/1"},
        {"code_path": "/srv", "code_dir": "/var/log"},
        {"code_path": "/srv", "code_dir": "/srv\n"},
        {"init_script": "/nonexistent"},
        {"init_script": "/proc/self/exe"},  # a link
    ],
)
async def test_a_mount_that_leads_astray_is_refused_and_leaves_nothing(
    around: Docker, changes: dict[str, Any]
):
    engine = around.make()
    with pytest.raises(Refused, match="cannot mount"):
        await make(around, engine, **changes)
    assert await engine.observe() == ()


async def test_what_docker_refuses_leaves_no_container_and_no_directory(around: Docker):
    engine = around.make(log_opts={"no-such-option": "1"})
    with pytest.raises(Refused, match="no-such-option"):
        await make(around, engine)
    assert await engine.observe() == ()
    assert list((around.state_dir / "Web01" / "logs").iterdir()) == []


async def test_a_cancelled_create_leaves_nothing(around: Docker):
    engine = around.make()
    reference = publish(around.registry, "app:1", What())
    image = await engine.pull(reference, None)
    around.door.hang()
    creating = asyncio.create_task(
        engine.create(Spec("r", reference), release(image.id, reference), publish=False)
    )
    await asyncio.sleep(0.2)
    creating.cancel()
    await asyncio.wait([creating])
    around.door.resume()
    logs = around.state_dir / "Web01" / "logs"
    async with asyncio.timeout(10):
        while await engine.observe() or not logs.exists() or list(logs.iterdir()):
            await asyncio.sleep(0.05)


async def test_a_foreign_container_may_hold_the_name(around: Docker):
    engine = around.make()
    first = await make(around, engine)
    name = first["Name"].lstrip("/")
    image = first["Image"]
    await engine.remove(first["Id"])
    theirs = around.api.create_container(image, name=name)["Id"]
    try:
        mine = await make(around, engine)
        assert mine["Name"] == f"/{name}-2"
        await engine.collect([])
        assert [c.id for c in await engine.observe()] == [mine["Id"]]
        assert around.api.inspect_container(theirs)["Id"] == theirs
    finally:
        around.api.remove_container(theirs)


async def test_the_network_is_the_agents_own_and_goes_with_its_last_container(around: Docker):
    engine = around.make("Web 01/ä")
    made = await make(around, engine, start=True)
    (name,) = made["NetworkSettings"]["Networks"]
    network = around.api.inspect_network(name)
    assert network["Labels"]["almagent.stack"] == around.stack_id
    assert network["Options"]["com.docker.network.bridge.name"] == engine.bridge_name
    assert Path("/sys/class/net", engine.bridge_name).exists()
    address = made["NetworkSettings"]["Networks"][name]["IPAddress"]
    assert (await engine.observe())[0].address == address
    await engine.terminate(made["Id"])
    await engine.kill(made["Id"])
    assert (await engine.observe())[0].address == address
    await engine.remove(made["Id"])
    with pytest.raises(docker.errors.NotFound):
        around.api.inspect_network(name)


def test_subnets_that_somebody_uses_are_avoided():
    first = next(candidates([]))
    assert str(first) == "172.30.0.0/27"
    assert str(next(candidates([first.supernet(new_prefix=16)]))) == "10.213.0.0/27"
    assert all(net.prefixlen for net in host_routes())


async def test_a_container_whose_network_was_pruned_starts_again(around: Docker):
    """While it is stopped its network counts as unused."""
    engine = around.make()
    made = await make(around, engine, ports=(8080,), start=True)
    (before,) = await engine.observe()
    around.api.kill(made["Id"])
    around.api.wait(made["Id"])
    (name,) = made["NetworkSettings"]["Networks"]
    around.api.remove_network(name)
    await engine.start(made["Id"])
    (after,) = await engine.observe()
    assert (after.id, after.state, after.address) == (before.id, State.RUNNING, before.address)
    assert list(after.doors) == [8080]


async def test_log_directories_of_vanished_containers_are_swept(around: Docker):
    engine = around.make()
    kept, lost = await make(around, engine), await make(around, engine)
    around.api.remove_container(lost["Id"], force=True)
    await engine.collect([])
    logs = around.state_dir / "Web01" / "logs"
    assert [path.name for path in logs.iterdir()] == [kept["Name"].lstrip("/")]


async def test_the_end_of_a_container_is_told_in_printable_text(around: Docker):
    engine = around.make()
    config = {
        "Cmd": [
            "/bin/sh",
            "-c",
            "seq 1 3000; printf '\\033[31mlast \\001line\\033[0m\\n'; exit 9",
        ],
        "Env": ["PATH=/bin"],
    }
    around.registry.publish("app:1", tar=root_file_system({}), config=config)
    image = await engine.pull(around.registry.reference("app:1"), None)
    wanted = release(image.id, "app:1", ports=())
    container_id = await engine.create(Spec("r", "app:1"), wanted, publish=False)
    await engine.start(container_id)
    async with asyncio.timeout(10):
        while (evidence := await engine.evidence(container_id)).exit_code is None:
            await asyncio.sleep(0.05)
    assert evidence.exit_code == 9
    assert evidence.log_tail.endswith("last line")
    assert evidence.log_tail.startswith("2802\n")  # the last 200 lines


@pytest.mark.parametrize(
    ("plant", "word"),
    [
        (lambda path: path.write_text("complete\n"), "complete"),
        (lambda path: path.write_text("  installing step 2"), "installing"),
        (lambda path: path.write_text(""), None),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), None),
        (lambda path: path.write_text("com\x1bplete"), None),
        (lambda path: path.write_text("x" * 100_000), "x" * 64),
        (lambda path: path.symlink_to("/etc/hostname"), None),
        (os.mkfifo, None),
        (lambda path: path.mkdir(), None),
        (lambda path: None, None),
    ],
    ids=[
        "word",
        "words",
        "empty",
        "binary",
        "escape",
        "endless",
        "link",
        "pipe",
        "directory",
        "none",
    ],
)
def test_the_status_file_is_read_with_care(tmp_path: Path, plant: Any, word: str | None):
    plant(tmp_path / "container_status")
    assert status_word(tmp_path) == word


async def test_no_secret_is_left_where_others_can_read_it(around: Docker):
    engine = around.make()
    made = await make(around, engine, {"TOKEN": "canary-value"}, start=True)
    assert "canary" not in json.dumps(made["Config"]["Labels"])
    for path in around.state_dir.rglob("*"):
        if path.is_file() and not path.is_socket():
            assert b"canary" not in path.read_bytes()
