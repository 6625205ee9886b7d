"""What can be said of the unit and the user data without an agent."""

from __future__ import annotations

import pytest

from tests.system.conftest import REPOSITORY
from tests.system.machine import Machine

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

UNIT = "/etc/systemd/system/almagent.service"
EXPOSURE = 22  # tenths: as root, with Docker, git over the network, and nftables


@pytest.fixture(scope="module")
def unit(machine: Machine) -> str:
    machine.copy_in(REPOSITORY / "systemd/almagent.service", UNIT)
    machine.write("/usr/bin/almagent", "#!/bin/true\n", 0o755)
    return UNIT


def test_exposure_is_low(machine: Machine, unit: str):
    machine.run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", unit)


def test_systemd_finds_no_fault_with_the_unit(machine: Machine, unit: str):
    verdict = machine.attempt("systemd-analyze", "verify", unit)
    assert (verdict.returncode, verdict.stdout, verdict.stderr) == (0, "", "")


def test_open_files_have_a_limit_that_an_agent_does_not_meet(machine: Machine, unit: str):
    machine.run("systemctl", "daemon-reload")
    for limit in ("LimitNOFILE", "LimitNOFILESoft"):
        assert machine.property(limit) == "8192"


def test_user_data_is_valid(machine: Machine):
    machine.copy_in(REPOSITORY / "packaging/cloud-init/user-data.yaml", "/srv/user-data.yaml")
    verdict = machine.run("cloud-init", "schema", "--config-file", "/srv/user-data.yaml")
    assert "Valid" in verdict
