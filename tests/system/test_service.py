"""The agent as a service: each test finds it serving and leaves it so."""

from __future__ import annotations

import json
import re
import time

import pytest

from tests.system import peers
from tests.system.machine import Machine
from tests.system.peers import Site

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

STOP = 5.0  # seconds that a stop may take
HUNG = 150.0  # seconds within which a Docker that does not answer is noticed
WATCHDOG = "[Service]\nWatchdogSec=6s\n"


def restarts(machine: Machine) -> int:
    return int(machine.property("NRestarts"))


def test_it_is_active_and_says_what_it_does(site: Site):
    machine = site.machine
    assert machine.property("ActiveState") == "active"
    assert machine.property("StatusText") != ""
    assert machine.run("systemctl", "is-enabled", "almagent").strip() == "enabled"
    assert machine.run("almagent", "--version").startswith("almagent ")


def test_all_it_does_works_inside_its_sandbox(site: Site):
    """Pull with root's login, code over ssh, the rules and the settings of the bridge."""
    machine = site.machine
    container = json.loads(machine.run("docker", "inspect", *site.containers()))[0]
    assert container["Config"]["Labels"]["almagent.commit"]
    machine.until(lambda: "source.commit " in machine.journal(), "what the commit is known by")
    assert "dnat to" in machine.run("nft", "list", "ruleset")
    network = next(iter(container["NetworkSettings"]["Networks"].values()))["NetworkID"]
    bridge = machine.shell(f"docker network inspect {network} -f '{{{{json .Options}}}}'")
    name = json.loads(bridge)["com.docker.network.bridge.name"]
    assert machine.shell(f"cat /proc/sys/net/ipv4/conf/{name}/route_localnet") == "1"
    assert set(machine.shell(f"cat /sys/class/net/{name}/brif/*/hairpin_mode").split()) == {"1"}


def test_a_new_release_takes_over_and_the_old_logs_go(site: Site):
    """The old container's logs belong to another user."""
    (before,) = site.containers()
    logs = "/var/lib/almagent/logs"
    assert site.machine.shell(f"stat -c %U {logs}/*/app") == "www-data"
    site.apply(environment_variables={"PAGE": "two"})

    def replaced() -> bool:
        return (
            before not in site.containers() and len(site.machine.shell(f"ls {logs}").split()) == 1
        )

    site.machine.until(replaced, "the new release")
    assert site.page() == "site 1"


def test_the_journal_has_one_event_a_line_and_how_much_it_matters(site: Site):
    raw = site.machine.run("journalctl", "--unit=almagent", "--output=json", "--no-pager")
    entries = [json.loads(line) for line in raw.splitlines()]
    own = [entry for entry in entries if entry.get("_TRANSPORT") == "stdout"]
    levels = {"debug": "7", "info": "6", "warning": "4", "error": "3"}
    assert own
    for entry in own:
        said = re.match(r"\[(\w+)\] [a-z_]+(\.[a-z_]+)+( \w+=|$)", entry["MESSAGE"])
        assert said, entry["MESSAGE"]
        assert entry["PRIORITY"] == levels[said[1]]


@pytest.mark.parametrize("number", ["KILL", "ABRT"])
def test_killed_it_comes_back_and_the_container_does_not_notice(site: Site, number: str):
    machine, containers, before = site.machine, site.containers(), restarts(site.machine)
    machine.run("systemctl", "kill", "--signal", number, "almagent")
    machine.until(lambda: restarts(machine) > before, "restart")
    machine.until(lambda: machine.property("ActiveState") == "active", "active again")
    assert (site.containers(), site.page()) == (containers, "site 1")


@pytest.fixture
def watchdog(site: Site) -> Machine:
    """A watchdog that does not take half a minute."""
    site.machine.write("/run/systemd/system/almagent.service.d/test.conf", WATCHDOG)
    site.machine.run("systemctl", "daemon-reload")
    site.machine.run("systemctl", "restart", "almagent")
    return site.machine


def test_frozen_it_is_restarted_by_the_watchdog(site: Site, watchdog: Machine):
    containers, before = site.containers(), restarts(watchdog)
    watchdog.run("systemctl", "kill", "--signal=STOP", "almagent")
    watchdog.until(lambda: restarts(watchdog) > before, "restart")
    watchdog.until(lambda: watchdog.property("ActiveState") == "active", "active again")
    assert "Watchdog timeout" in watchdog.journal()
    assert (site.containers(), site.page()) == (containers, "site 1")


def test_a_hung_docker_is_noticed_too(site: Site, watchdog: Machine):
    """Its calls end by their deadlines, so no loop stands still: yet a new process may find a way."""
    containers, before = site.containers(), restarts(watchdog)
    watchdog.run("systemctl", "kill", "--signal=STOP", "docker")
    try:
        watchdog.until(lambda: restarts(watchdog) > before, "restart", patience=HUNG)
    finally:
        watchdog.run("systemctl", "kill", "--signal=CONT", "docker")
    assert "loops.late " in watchdog.journal()
    watchdog.until(lambda: watchdog.property("ActiveState") == "active", "active again")
    assert (site.containers(), site.page()) == (containers, "site 1")


def test_fed_the_watchdog_is_quiet(site: Site, watchdog: Machine):
    before = restarts(watchdog)
    time.sleep(10)  # longer than WatchdogSec: nothing is to happen
    assert restarts(watchdog) == before


def test_a_reload_reads_the_settings_again(site: Site):
    machine, containers, pid = site.machine, site.containers(), site.machine.property("MainPID")
    machine.write("/etc/almagent/agent.toml", peers.settings(site, log={"format": "json"}), 0o600)
    machine.run("systemctl", "reload", "almagent")
    machine.until(lambda: '"revision": ' in machine.journal(), "the new format")
    assert machine.property("MainPID") == pid
    assert (site.containers(), site.page()) == (containers, "site 1")


def test_the_secret_may_come_as_a_credential(site: Site):
    """Without one the agent would not start."""
    machine = site.machine
    machine.shell("mkdir -p /etc/credstore && chmod 700 /etc/credstore")
    machine.shell("mv /etc/almagent/client_secret /etc/credstore/almagent.client_secret")
    machine.run("systemctl", "restart", "almagent")
    machine.shell("mv /etc/credstore/almagent.client_secret /etc/almagent/client_secret")
    machine.run("systemctl", "restart", "almagent")


@pytest.mark.parametrize("docker", ["CONT", "STOP"], ids=["with Docker", "with a hung Docker"])
def test_stopped_it_leaves_at_once_and_its_container_serves_on(site: Site, docker: str):
    machine, containers = site.machine, site.containers()
    machine.run("systemctl", "kill", "--signal", docker, "docker")
    try:
        began = time.monotonic()
        machine.run("systemctl", "stop", "almagent")
        assert time.monotonic() - began < STOP
    finally:
        machine.run("systemctl", "kill", "--signal=CONT", "docker")
    assert machine.property("Result") == "success"
    assert (site.containers(), site.page()) == (containers, "site 1")
    machine.run("systemctl", "start", "almagent")


def test_settings_that_will_not_do_are_tried_again_without_haste(site: Site):
    machine, containers = site.machine, site.containers()
    good = machine.run("cat", "/etc/almagent/agent.toml")
    machine.write("/etc/almagent/agent.toml", "nonsense", 0o600)
    before = restarts(machine)
    assert machine.attempt("systemctl", "restart", "almagent").returncode != 0
    time.sleep(5)
    assert restarts(machine) - before <= 1
    assert "not TOML" in machine.shell("journalctl --unit=almagent --lines=20 --output=cat")
    machine.write("/etc/almagent/agent.toml", good, 0o600)
    machine.until(lambda: machine.property("ActiveState") == "active", "active by itself", 25)
    assert (site.containers(), site.page()) == (containers, "site 1")
