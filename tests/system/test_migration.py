"""From the original agent, as docs/migration.md says: its traffic moves over, and back, without a lost request."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.system import peers
from tests.system.machine import Machine
from tests.system.peers import Site

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

ADDRESS = "10.99.0.1"  # of the host: the original's rules do not serve 127.0.0.1
PAGE = f"http://{ADDRESS}:{peers.PORT}/"

# One container on Docker's own bridge, with no published port, and a rule in Docker's own chain.
ORIGINAL = f"""
ip address add {ADDRESS}/32 dev lo
mkdir -p /srv/original && echo original >/srv/original/index.html
docker run --detach --name active --volume /srv/original:/var/www/html {peers.IMAGE} 2>&1
target=$(docker inspect active --format '{{{{.NetworkSettings.IPAddress}}}}'):{peers.PORT}
iptables -t nat -A DOCKER ! -i docker0 -p tcp -d 0/0 --dport {peers.PORT} -j DNAT --to-destination $target
"""
# As docs/migration.md says, after the time for which the kernel remembers closed connections.
REMEMBERED = 2  # seconds
GONE = f"""
sleep {REMEMBERED + 1}
docker rm --force active
iptables -t nat -S DOCKER | grep -- '--dport {peers.PORT} ' | grep -v 127.0.0.1 | sed 's/^-A/-D/' |
  while read -r rule; do iptables -t nat $rule; done
"""


def settings(site: Site) -> str:
    """The original's own file, where it was."""
    names = {"StackId": site.stack_id, "AuthorizationToken": site.secret, "Flag": "Web01"}
    return json.dumps({**names, "UserId": "user-1", "APIHost": "https://api.example.com"})


def test_traffic_moves_over_and_back(machine: Machine, package: Path):
    peers.furnish(machine, package)
    site = peers.new_site(machine)
    machine.shell(ORIGINAL)
    machine.run("sysctl", "-w", f"net.netfilter.nf_conntrack_tcp_timeout_time_wait={REMEMBERED}")
    machine.until(lambda: site.page(PAGE) == "original", "the original's container")
    machine.write("/opt/mobingi/etc/alm-agent.cfg", settings(site), 0o600)
    machine.write("/etc/systemd/system/almagent.service.d/test.conf", peers.OTHERWISE)
    with peers.load(machine, PAGE) as outcome:
        machine.run("apt-get", "install", "--yes", "--quiet", "/srv/almagent.deb")
        machine.until(lambda: site.page(PAGE) == "site 1", "the new container")
        machine.run("almagent", "stop")
        assert site.page(PAGE) == "original"
        machine.run("systemctl", "restart", "almagent")
        machine.until(lambda: site.page(PAGE) == "site 1", "the new container again")
        machine.shell(GONE)
    assert outcome.failed == ()
    assert outcome.good > 20
    assert site.page(PAGE) == site.page() == "site 1"
