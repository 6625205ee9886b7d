"""An engine that restarts, rules that are flushed, foreign things beside ours: on an engine of the test's own."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from almagent.core.memory import STABLE_AFTER
from tests.peers import apps
from tests.peers.agent import Agent
from tests.peers.api import ScriptedApi
from tests.peers.dockerd import PrivateEngine, private_engine
from tests.peers.fault_registry import fault_registry
from tests.peers.images import root_file_system
from tests.peers.load import Tally, Target, one
from tests.peers.netns import inside, listening
from tests.scenario.releases import document

PORT = 8000
SERVER = {"Cmd": ["/usr/bin/perl", "/server.pl"], "Env": ["PATH=/bin"]}


@dataclass
class Own:
    """A whole host in a network namespace."""

    agent: Agent
    engine: PrivateEngine
    docker: Any
    image: str

    def nft(self, *arguments: str) -> str:
        return self.engine.machine.run("nft", *arguments)

    async def answers(self) -> bool:
        tally = Tally("probe")
        await one(tally, Target("127.0.0.1", PORT, self.engine.machine.path))
        return not tally.lost

    async def back_within(self, seconds: float) -> None:
        began = time.monotonic()
        while not await self.answers():
            assert time.monotonic() - began < seconds
            await asyncio.sleep(0.05)


@pytest.fixture
async def own(stack_id: str, tmp_path: Path) -> AsyncIterator[Own]:
    root = Path(tempfile.mkdtemp(prefix="almagent-test-"))  # a socket's path has to be short
    with private_engine(root) as engine:
        place = engine.machine.path
        with (
            fault_registry(lambda: listening(place, "127.0.0.1", 0)) as registry,
            closing(engine.client()) as docker,
        ):
            registry.publish("app:1", tar=root_file_system(apps.files()), config=SERVER)
            api = ScriptedApi()
            with inside(place):
                await api.start()
            agent = Agent(tmp_path, api, stack_id, docker, namespace=place)
            agent.configure(docker={"host": engine.host})
            api.document = document(registry.reference("app:1"), PORT)
            await agent.start()
            await agent.until_told("uptodate", patience=40)
            yield Own(agent, engine, docker, registry.reference("app:1"))
            await agent.clean_up()
            await api.stop()


async def test_foreign_things_are_never_touched_and_flushed_rules_are_back(own: Own):
    own.nft("add", "table", "ip", "foreign")
    own.nft("add", "chain", "ip", "foreign", "c")
    own.nft("add", "rule", "ip", "foreign", "c", "tcp", "dport", "9", "drop")
    foreign = own.nft("list", "table", "ip", "foreign")
    decoys = [own.docker.create_container(own.image, name=name)["Id"] for name in DECOYS]
    for decoy in decoys:
        own.docker.start(decoy)
    before = [own.docker.inspect_container(decoy)["State"]["StartedAt"] for decoy in decoys]

    own.agent.api.document = document(own.image, PORT, PAGE="two")
    await own.agent.until_told("uptodate", 2)
    await own.agent.until(lambda: len(own.agent.containers()) == 1, "old one removed", 30)
    own.docker.prune_networks()
    (ours,) = own.agent.running()
    own.docker.restart(ours["Id"], timeout=1)
    await own.back_within(3)

    assert own.nft("list", "table", "ip", "foreign") == foreign
    after = [own.docker.inspect_container(decoy)["State"]["StartedAt"] for decoy in decoys]
    assert after == before
    own.nft("flush", "ruleset")
    await own.back_within(3)


async def test_a_foreign_rule_that_takes_the_port_is_told(own: Own):
    own.nft("add", "table", "ip", "foreign")
    own.nft("add", "chain", "ip", "foreign", "early", "{ type nat hook output priority -150; }")
    taking = f"ip daddr 127.0.0.1 tcp dport {PORT} redirect to :9"
    own.nft("add", "rule", "ip", "foreign", "early", taking)
    own.agent.api.document = document(own.image, PORT, PAGE="two")
    taken = f"cannot serve port {PORT}: other NAT rules of this host come first"
    await own.agent.until(lambda: own.agent.last_error() == taken, "told", 30)
    own.nft("delete", "table", "ip", "foreign")
    own.agent.api.document = document(own.image, PORT, PAGE="three")
    await own.agent.until(lambda: own.agent.words()[-1] == "uptodate", "uptodate", 30)
    await own.back_within(3)


DECOYS = ("almagent-Web01", "my-almagent-Web01-x", "standby")


@pytest.mark.parametrize("live_restore", [False, True], ids=["plain", "live-restore"])
async def test_an_engine_that_restarts_costs_no_release(own: Own, live_restore: bool):
    if live_restore:
        await restart(own, live_restore=True)
    (before,) = own.agent.running()
    pid = own.docker.inspect_container(before["Id"])["State"]["Pid"]
    await restart(own, live_restore=live_restore)
    await own.back_within(3)
    assert [c["Id"] for c in own.agent.containers()] == [before["Id"]]
    same = own.docker.inspect_container(before["Id"])["State"]["Pid"] == pid
    assert same == live_restore
    await own.agent.until(lambda: own.agent.words()[-1] == "uptodate", "uptodate", 40)


async def restart(own: Own, *, live_restore: bool) -> None:
    own.engine.stop()
    own.engine.live_restore = live_restore
    await asyncio.get_running_loop().run_in_executor(None, own.engine.start)


@pytest.mark.parametrize("changed", [False, True], ids=["same document", "new document"])
async def test_a_container_that_can_not_be_started_again_is_made_anew(own: Own, changed: bool):
    """It has run for long, and what it mounts is gone."""
    (before,) = own.agent.running()
    await asyncio.sleep(STABLE_AFTER)
    shutil.rmtree(own.agent.directory / "state" / "logs")
    own.docker.kill(before["Id"])
    if changed:
        own.agent.api.document = document(own.image, PORT, PAGE="two")
    await own.back_within(25)
    await own.agent.until(lambda: len(own.agent.containers()) == 1, "one", 20)
    assert own.agent.containers()[0]["Id"] != before["Id"]


async def test_a_network_that_was_pruned_is_made_anew(own: Own):
    """With the container stopped the network counts as unused."""
    own.agent.process.send_signal(19)  # type: ignore[union-attr]  # SIGSTOP: it does not see it happen
    (container,) = own.agent.running()
    own.docker.stop(container["Id"], timeout=0)
    own.docker.prune_networks()
    own.agent.process.send_signal(18)  # type: ignore[union-attr]
    await own.back_within(20)
    assert len(own.agent.containers()) == 1
