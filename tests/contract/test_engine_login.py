"""Logins: against a real registry with a password, plain and TLS; from the document or from the host."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from almagent.adapters import registry_auth
from almagent.adapters.docker_engine.manifest import describe, size
from almagent.core.model import RegistryLogin, Secret
from almagent.ports import Refused, Unavailable
from tests.peers.engine_world import docker_engine
from tests.peers.images import Images
from tests.peers.registry import PASSWORD, USER, RunningRegistry, registry, trusted

LOGIN = RegistryLogin(USER, Secret(PASSWORD))
CANARY = "canary-wrong"


@pytest.fixture(scope="module")
def private(
    docker_api: docker.APIClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningRegistry]:
    with registry(docker_api, tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
async def pushed(private: RunningRegistry, images: Images) -> AsyncIterator[tuple[str, str]]:
    """Reference and id of an image that only a login gets."""
    image = images.make('CMD ["/bin/true"]')
    yield private.push(image, "app:1"), images.id_of(image)
    api: Any = private.api
    name = f"{private.address}/app:1"
    if any(name in (one["RepoTags"] or ()) for one in api.images()):
        api.remove_image(name)


def engine_with(tmp_path: Path, stack_id: str, config: dict[str, Any] | None = None) -> Any:
    path = tmp_path / "config.json"
    if config is not None:
        path.write_text(json.dumps(config))
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    return docker_engine(tmp_path, host, stack_id, docker_config=path)


def basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


async def test_the_documents_login_opens_the_registry(
    pushed: tuple[str, str], tmp_path: Path, stack_id: str
):
    engine = engine_with(tmp_path, stack_id)
    assert (await engine.pull(pushed[0], LOGIN)).id == pushed[1]
    engine.close()


async def test_no_login_and_a_wrong_one_are_refused_without_telling_it(
    pushed: tuple[str, str], tmp_path: Path, stack_id: str
):
    engine = engine_with(tmp_path, stack_id)
    for login in (None, RegistryLogin(USER, Secret(CANARY)), RegistryLogin("", Secret(CANARY))):
        with pytest.raises(Refused, match="refuses the login") as caught:
            await engine.pull(pushed[0], login)
        assert "canary" not in repr(caught.value)
    engine.close()


async def test_the_hosts_docker_configuration_opens_the_registry(
    private: RunningRegistry, pushed: tuple[str, str], tmp_path: Path, stack_id: str
):
    config = {"auths": {f"https://{private.address}/v1/": {"auth": basic(USER, PASSWORD)}}}
    engine = engine_with(tmp_path, stack_id, config)
    assert (await engine.pull(pushed[0], None)).id == pushed[1]
    engine.close()


async def test_the_documents_login_comes_before_the_hosts(
    private: RunningRegistry, pushed: tuple[str, str], tmp_path: Path, stack_id: str
):
    config = {"auths": {private.address: {"auth": basic(USER, CANARY)}}}
    engine = engine_with(tmp_path, stack_id, config)
    assert (await engine.pull(pushed[0], LOGIN)).id == pushed[1]
    engine.close()


@pytest.mark.parametrize(
    "config", ['{"auths": {"r.io": "x"}}', '{"auths": {"r.io": {"auth": "%%%"}}}', "{"]
)
async def test_a_broken_configuration_of_the_host_keeps_nobody_from_docker(
    tmp_path: Path, stack_id: str, monkeypatch: pytest.MonkeyPatch, config: str
):
    (tmp_path / "config.json").write_text(config)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    engine = engine_with(tmp_path, stack_id)
    assert await engine.observe() == ()
    engine.close()


async def test_an_own_ca_is_trusted_through_dockers_directory(
    docker_api: docker.APIClient, images: Images, tmp_path: Path, stack_id: str
):
    """On an address that is not loopback: there the engine checks no certificate."""
    api: Any = docker_api
    root, labels = tmp_path / "registry", {"almagent.stack": stack_id}
    root.mkdir()
    network = api.create_network(f"almagent-test-{stack_id}", labels=labels)["Id"]
    try:
        gateway = api.inspect_network(network)["IPAM"]["Config"][0]["Gateway"]
        with registry(docker_api, root, gateway, tls=True) as running:
            engine = engine_with(tmp_path, stack_id)
            with pytest.raises(Unavailable, match="certificate"):
                await engine.pull(f"{running.address}/app:1", LOGIN)
            with trusted(running):
                image = images.make('CMD ["/bin/false"]')
                reference = running.push(image, "app:1")
                assert (await engine.pull(reference, LOGIN)).id == images.id_of(image)
                login = {"username": USER, "password": PASSWORD}
                facts = describe(api.info())
                repository, _, tag = reference.rpartition(":")
                assert await size(facts, repository, tag, login, []) > 1 << 20
            engine.close()
            api.remove_image(reference)
    finally:
        api.remove_network(network)


# --- the host's configuration ---


def helper(folder: Path, name: str, body: str) -> None:
    path = folder / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\nread server\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


async def find(tmp_path: Path, config: object, registry: str, **options: float) -> Any:
    path = tmp_path / "config.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return await registry_auth.find(registry, path, **options)


ANSWER = """printf '{"Username": "%s", "Secret": "for %s"}' bob "$server" """


@pytest.mark.parametrize(
    ("config", "registry", "login"),
    [
        ({"credHelpers": {"r.io": "one"}}, "r.io", {"username": "bob", "password": "for r.io"}),
        ({"credsStore": "one"}, "r.io", {"username": "bob", "password": "for r.io"}),
        ({"credsStore": "none", "credHelpers": {"r.io": "one"}}, "r.io", {"username": "bob"}),
        (
            {"credsStore": "one"},
            "docker.io",
            {"password": "for https://index.docker.io/v1/"},
        ),
        ({"credsStore": "token"}, "r.io", {"identitytoken": "t"}),
        ({"credsStore": "none"}, "r.io", {}),
        (
            {"credsStore": "none", "auths": {"r.io": {"auth": basic("eve", "a:b")}}},
            "r.io",
            {"username": "eve", "password": "a:b"},
        ),
        ({"auths": {"r.io": {"auth": basic("eve", "x")}}}, "r.io:5000", {}),
        ({"auths": {"r.io": {"identitytoken": "t"}}}, "r.io", {"identitytoken": "t"}),
        ({"auths": {"r.io": {"auth": "%%%"}}}, "r.io", {}),
        ({"auths": []}, "r.io", {}),
        ("not json", "r.io", {}),
        ("[]", "r.io", {}),
    ],
)
async def test_a_login_is_found_as_docker_finds_it(
    programs: Path, tmp_path: Path, config: object, registry: str, login: dict[str, str]
):
    helper(programs, "one", ANSWER)
    helper(programs, "none", "echo credentials not found in native keychain; exit 1")
    helper(programs, "token", """echo '{"Username": "<token>", "Secret": "t"}'""")
    found = await find(tmp_path, config, registry)
    assert login.items() <= dict(found).items()
    assert bool(found) == bool(login)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("exit 3", "ended with 3"),
        ("echo canary", "not valid"),
        ("sleep 60 & sleep 60", "does not answer"),
    ],
)
async def test_a_helper_that_fails_is_named_and_ended(
    programs: Path, tmp_path: Path, body: str, words: str
):
    helper(programs, "bad", body)
    began = time.monotonic()
    with pytest.raises(Unavailable, match=f"docker-credential-bad.*{words}") as caught:
        await find(tmp_path, {"credsStore": "bad"}, "r.io", deadline=0.5)
    assert time.monotonic() - began < 2
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("name", ["not-installed", "../evil"])
async def test_a_helper_that_is_not_there_is_refused(programs: Path, tmp_path: Path, name: str):
    with pytest.raises(Refused):
        await find(tmp_path, {"credsStore": name}, "r.io")


async def test_cancelling_ends_the_helper(programs: Path, tmp_path: Path):
    helper(programs, "slow", f"echo $$ > {tmp_path}/pid; sleep 60")
    task = asyncio.create_task(find(tmp_path, {"credsStore": "slow"}, "r.io"))
    async with asyncio.timeout(5):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()
