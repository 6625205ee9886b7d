"""A host of its own for what the router does, and the router over nftables there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from almagent.adapters.router import NftRouter
from tests.peers.netns import Lan, inside, lan

TABLE = "almagent_test"


@pytest.fixture
def net() -> Iterator[Lan]:
    """The test itself runs in the namespace of the host."""
    with lan() as built, inside(built.host.path):
        yield built


@pytest.fixture
def router(net: Lan) -> NftRouter:
    return NftRouter(table=TABLE, bridge=lambda: net.bridge)
