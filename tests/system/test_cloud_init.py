"""The user data that the package ships, through cloud-init's own NoCloud data source."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system import peers
from tests.system.conftest import REPOSITORY
from tests.system.machine import Machine
from tests.system.peers import Site

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

SEED = "/var/lib/cloud/seed/nocloud"
# No network: the package comes from a repository on the disk, and nothing else is to be fetched.
CLOUD = """
datasource_list: [NoCloud, None]
network: {config: disabled}
apt: {preserve_sources_list: true}
locale: C.UTF-8
"""
REPOSITORY_ON_DISK = """
mkdir /srv/repository && mv /srv/almagent.deb /srv/repository && cd /srv/repository
{
  dpkg-deb --field almagent.deb
  echo Filename: ./almagent.deb
  echo Size: $(stat -c %s almagent.deb)
  echo SHA256: $(sha256sum almagent.deb | cut -d' ' -f1)
} >Packages
echo 'deb [trusted=yes] file:/srv/repository ./' >/etc/apt/sources.list
"""


def user_data(site: Site) -> str:
    text = (REPOSITORY / "packaging/cloud-init/user-data.yaml").read_text()
    values = {"STACK_ID": site.stack_id, "FLAG": "Web01", "AUTHORIZATION_TOKEN": site.secret}
    for name, value in values.items():
        assert text.count(name) == 1
        text = text.replace(name, value)
    here = f"almagent register --url {peers.API} --set cloud.provider=none"
    return text.replace("almagent register", here)


def test_from_user_data_to_a_serving_container(
    machine: Machine, package: Path, record_property: Callable[[str, object], None]
):
    peers.furnish(machine, package)
    site = peers.new_site(machine)
    machine.shell(REPOSITORY_ON_DISK)
    machine.write("/etc/cloud/cloud.cfg.d/99-test.cfg", CLOUD)
    machine.write("/etc/systemd/system/almagent.service.d/test.conf", peers.OTHERWISE)
    machine.write(f"{SEED}/user-data", user_data(site))
    machine.write(f"{SEED}/meta-data", "instance-id: i-1\n")
    machine.shut_down()
    began = time.monotonic()
    machine.boot()
    machine.until(lambda: site.page() == "site 1", "the site")
    record_property("seconds_to_a_serving_container", round(time.monotonic() - began, 1))
    assert machine.run("cloud-init", "status").strip() == "status: done"
    assert machine.property("ActiveState") == "active"
    assert machine.run("systemctl", "is-enabled", "almagent").strip() == "enabled"
    modes = machine.shell("stat -c %a /etc/almagent/agent.toml /etc/almagent/client_secret")
    assert modes == "600\n600"
