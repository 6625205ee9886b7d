"""Upgrade, removal and purge: traffic goes on, and in the end nothing is left but the containers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system import peers
from tests.system.machine import Machine
from tests.system.peers import Site

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

NEXT = "99.0.0"
NEXT_VERSION = f"""
dpkg-deb --raw-extract /srv/almagent.deb /srv/next
cd /srv/next
sed -i 's/^Version:.*/Version: {NEXT}-1/' DEBIAN/control
package=$(echo usr/lib/almagent/lib/python3.*/site-packages/almagent)
sed -i 's/^__version__ = .*/__version__ = "{NEXT}"/' $package/__init__.py
rm $package/__pycache__/__init__.*
dpkg-deb --build -z1 /srv/next /srv/next.deb
"""


def test_it_has_compiled_all_it_brings(site: Site):
    """Nothing is ever written below /usr/lib/almagent: the sandbox forbids it, and purge would leave it."""
    assert site.machine.attempt("dpkg", "--verify", "almagent").stdout == ""
    stale = "find /usr/lib/almagent -newer /var/lib/dpkg/info/almagent.list -type f"
    assert site.machine.shell(stale) == ""


def test_an_upgrade_loses_no_request(site: Site):
    machine, containers = site.machine, site.containers()
    machine.shell(NEXT_VERSION)
    with peers.load(machine) as outcome:
        machine.run("apt-get", "install", "--yes", "--quiet", "/srv/next.deb")
        machine.until(lambda: machine.property("ActiveState") == "active", "active again")
    assert outcome.failed == ()
    assert outcome.good > 20
    assert machine.run("almagent", "--version") == f"almagent {NEXT}\n"
    assert NEXT in machine.shell(
        "grep -a ^__version__ /usr/lib/almagent/lib/*/*/almagent/__init__.py"
    )
    assert site.containers() == containers


def test_settings_and_what_the_agent_knows_survive_an_upgrade(site: Site):
    machine = site.machine
    assert site.stack_id in machine.run("cat", "/etc/almagent/agent.toml")
    assert machine.shell("stat -c %a /etc/almagent/agent.toml /var/lib/almagent") == "600\n700"


def test_removed_and_installed_again_it_goes_on(site: Site):
    machine, containers = site.machine, site.containers()
    machine.run("apt-get", "remove", "--yes", "--quiet", "almagent")
    assert (site.containers(), site.page()) == (containers, "site 1")
    machine.run("apt-get", "install", "--yes", "--quiet", "/srv/next.deb")
    assert machine.property("ActiveState") == "active"
    assert (site.containers(), site.page()) == (containers, "site 1")


def mounted(site: Site) -> list[str]:
    """What the container has from the agent's directory."""
    sources = "{{range .Mounts}}{{println .Source}}{{end}}"
    paths = site.machine.run("docker", "inspect", "--format", sources, *site.containers()).split()
    return [path for path in paths if path.startswith("/var/lib/almagent/")]


def purge(machine: Machine) -> str:
    """The commands that it tells."""
    purged = machine.attempt("apt-get", "purge", "--yes", "--quiet", "almagent")
    assert purged.returncode == 0
    return "\n".join(line for line in purged.stdout.splitlines() if line.startswith("    "))


def assert_nothing_is_left(site: Site) -> None:
    machine = site.machine
    assert peers.left(machine) == []
    assert site.containers() == []
    assert "almagent" not in machine.run("nft", "list", "tables")
    assert "almagent" not in machine.run("docker", "network", "ls")


def test_purged_it_leaves_nothing_but_the_container_and_what_that_has_mounted(site: Site):
    machine, containers, ours = site.machine, site.containers(), mounted(site)
    assert len(ours) == 2  # code and logs
    end_them = purge(machine)
    assert [path for path in ours if machine.attempt("ls", path).returncode] == []
    kept = {parent for path in ours for parent in (path, *map(str, Path(path).parents))}
    assert [path for path in peers.left(machine) if path not in kept] == []
    machine.run("docker", "restart", "--time", "1", *containers)
    assert site.containers() == containers
    machine.shell(end_them)
    assert_nothing_is_left(site)


def test_purged_while_docker_is_away_it_keeps_what_may_be_mounted(site: Site):
    machine = site.machine
    peers.install(site)
    containers, ours = site.containers(), mounted(site)
    machine.run("systemctl", "stop", "docker.socket", "docker")
    end_them = purge(machine)
    assert [path for path in ours if machine.attempt("ls", path).returncode] == []
    assert machine.attempt("ls", "/var/lib/almagent/state.json").returncode != 0
    machine.run("systemctl", "start", "docker")
    running = ("docker", "ps", "--quiet", "--no-trunc", "--filter", "label=almagent.stack")
    machine.until(lambda: machine.run(*running).split() == containers, "the container again")
    machine.shell(end_them)
    assert_nothing_is_left(site)


def test_after_stop_a_purge_leaves_nothing_at_all(site: Site):
    peers.install(site)
    site.machine.run("almagent", "stop")
    assert purge(site.machine) == ""
    assert_nothing_is_left(site)
    assert {"terminated", "stopped"} <= set(site.words())
