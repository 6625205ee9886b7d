"""When the router cannot: no bridge, no rights, an nft that is missing, hangs, fails or speaks otherwise."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from almagent.adapters.nft import links
from almagent.adapters.nft.command import Nft
from almagent.adapters.router import NftRouter, supported
from almagent.core.model import Target
from almagent.ports import Refused, Unavailable
from tests.contract.conftest import TABLE
from tests.peers.files import no_more_files
from tests.peers.netns import Lan, run

OLD = "10.77.0.2"
PORT = 8080
LOCALNET = Path("/proc/sys/net/ipv4/conf/br0/route_localnet")


@pytest.mark.parametrize("bridge", ["", "br9", 'br0" drop #', "a-name-that-is-too-long"])
async def test_an_unknown_bridge_is_no_route_and_no_rule(net: Lan, bridge: str):
    router = NftRouter(table=TABLE, bridge=lambda: bridge)
    assert await router.routes() == {}
    with pytest.raises(Unavailable, match="cannot route"):
        await router.point({PORT: Target(OLD)})
    assert run("nft", "list", "ruleset") == ""


async def test_without_files_nothing_is_known_and_nothing_ends(net: Lan, router: NftRouter):
    """An error of the port: the reconciler tries again."""
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "read route_localnet of br0": router.routes,
        "run nft": lambda: router.point({PORT: Target(OLD)}),
        "reset route_localnet of br0": router.clear,
        "make a TCP socket": lambda: router.probe(PORT, OLD),
    }
    with no_more_files():
        for what, call in calls.items():
            with pytest.raises(Unavailable, match=f"cannot {what}: Too many open files"):
                await call()
    assert await router.routes() == {}


def test_without_files_the_ports_of_the_bridge_cannot_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "br0/brif").mkdir(parents=True)
    monkeypatch.setattr(links, "_NET", tmp_path)  # /sys shows the bridges of another namespace
    links.allow_hairpin("br0")
    with (
        no_more_files(),
        pytest.raises(Unavailable, match="cannot list the ports of br0: Too many open files"),
    ):
        links.allow_hairpin("br0")


@pytest.mark.parametrize("table", ["", "a b", "1x", "x;flush ruleset", "x" * 64])
def test_the_name_of_the_table_is_checked(table: str):
    with pytest.raises(ValueError, match="cannot use"):
        NftRouter(table=table, bridge=lambda: "br0")


async def test_a_transaction_that_nft_refuses_changes_nothing(net: Lan, router: NftRouter):
    run("nft", f"add table ip {TABLE}; add chain ip {TABLE} c; add table ip holder")
    before = run("nft", "list", "ruleset")
    answer = await Nft().load(f"delete table ip {TABLE}\nadd rule ip holder missing accept\n")
    assert not answer.ok
    assert run("nft", "list", "ruleset") == before


@pytest.fixture
def broken_nft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name that comes first on the PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program = tmp_path / "nft"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    program.chmod(0o755)
    return program


def is_gone(program: Path) -> bool:
    pid = int((program.parent / "pid").read_text())
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_an_nft_that_does_not_answer_is_killed_at_the_deadline(broken_nft: Path):
    started = time.monotonic()
    with pytest.raises(Unavailable, match=r"cannot run nft: no answer within 0\.3 s"):
        await Nft(deadline=0.3).list_table(TABLE)
    assert time.monotonic() - started < 1
    assert is_gone(broken_nft)


async def test_cancelling_kills_the_child(broken_nft: Path):
    listing = asyncio.ensure_future(Nft().list_table(TABLE))
    while not (broken_nft.parent / "pid").exists() or not (broken_nft.parent / "pid").read_text():
        await asyncio.sleep(0.01)
    listing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listing
    assert is_gone(broken_nft)


async def test_an_nft_that_fails_makes_the_routes_unknown_not_empty(
    net: Lan, router: NftRouter, broken_nft: Path
):
    LOCALNET.write_text("1")
    broken_nft.write_text("#!/bin/sh\necho 'Error: Operation not permitted' >&2\nexit 1\n")
    with pytest.raises(Unavailable, match="Operation not permitted"):
        await router.routes()
    with pytest.raises((Unavailable, Refused)):
        await router.clear()
    assert await supported() == "cannot use nftables: Operation not permitted"


async def test_without_nft_there_is_a_reason(
    net: Lan, router: NftRouter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await supported() == "cannot use nftables: cannot run nft: No such file or directory"


async def test_an_nft_that_prints_otherwise_is_not_relied_on(net: Lan, broken_nft: Path):
    broken_nft.write_text(
        '#!/bin/sh\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\nnft "$@" | sed s/dnat/DNAT/\n'
    )
    reason = await supported()
    assert reason == "cannot use nftables: nft lists rules in a form that is not known"
    assert run("/usr/sbin/nft", "list", "ruleset") == ""


async def test_what_a_killed_trial_left_is_gone_after_the_next_one(net: Lan):
    run("nft", "add", "table", "ip", f"{TABLE}_trial", "{ flags dormant; }")
    assert await supported(TABLE) is None
    assert run("nft", "list", "ruleset") == ""


async def test_supported_leaves_no_trace(net: Lan):
    assert await supported() is None
    assert run("nft", "list", "ruleset") == ""


def test_without_the_capability_there_is_a_reason(net: Lan):
    program = (
        "import asyncio; from almagent.adapters.router import supported; "
        "print(asyncio.run(supported()))"
    )
    without = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    answer = run(*without, sys.executable, "-c", program)
    assert answer.startswith("cannot use nftables: ")
