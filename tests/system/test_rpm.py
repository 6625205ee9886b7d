"""The .rpm, by the program that installs it elsewhere: this machine's own packages are dpkg's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system import peers
from tests.system.machine import Machine
from tests.system.peers import Site

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

# What it depends on has other names where rpm is at home.
RPM = ("rpm", "--force-debian", "--nodeps")
KEPT = ("/etc/almagent", "/var/lib/almagent")


@pytest.fixture(scope="module")
def site(machine: Machine, package: Path, rpm_packages: tuple[Path, Path]) -> Site:
    peers.furnish(machine, package)
    for number, path in enumerate(rpm_packages, 1):
        machine.copy_in(path, f"/srv/{number}.rpm")
    site = peers.new_site(machine)
    peers.settle(site)
    machine.run(*RPM, "--install", "/srv/1.rpm")
    machine.until(lambda: site.page() == "site 1", "the site")
    return site


def test_all_is_as_it_was_packed_and_nothing_is_compiled_later(site: Site):
    assert site.machine.run(*RPM, "--verify", "almagent") == ""
    assert "almagent-0" in site.machine.run("rpm", "--query", "almagent")
    stale = "find /usr/lib/almagent -newer /srv/1.rpm -type f"
    assert site.machine.shell(stale) == ""


def test_an_upgrade_loses_no_request(site: Site):
    machine, containers = site.machine, site.containers()
    process = machine.property("MainPID")
    with peers.load(machine) as outcome:
        machine.run(*RPM, "--upgrade", "/srv/2.rpm")
        machine.until(lambda: machine.property("ActiveState") == "active", "active again")
    assert outcome.failed == ()
    assert outcome.good > 20
    assert machine.property("MainPID") != process
    assert machine.run("rpm", "--query", "--queryformat=%{RELEASE}", "almagent") == "2"
    assert site.containers() == containers


def test_erased_it_leaves_settings_and_state_and_the_container(site: Site):
    machine, containers = site.machine, site.containers()
    machine.run(*RPM, "--erase", "almagent")
    assert (site.containers(), site.page()) == (containers, "site 1")
    assert [path for path in peers.left(machine) if not path.startswith(KEPT)] == []
    assert site.stack_id in machine.run("cat", "/etc/almagent/agent.toml")


def test_installed_again_it_goes_on(site: Site):
    machine, containers = site.machine, site.containers()
    machine.run(*RPM, "--install", "/srv/2.rpm")
    assert machine.property("ActiveState") == "active"
    assert (site.containers(), site.page()) == (containers, "site 1")
