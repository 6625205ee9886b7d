"""Stories that start on a host where a release serves, and what the agent did in them."""

from __future__ import annotations

from typing import Any

import pytest

from almagent.core import actions as do
from almagent.core.planner import Strategy
from tests.pure.host import App, Box
from tests.pure.world import Watcher, World

SWITCH, RECREATE = Strategy.SWITCH, Strategy.RECREATE
both = pytest.mark.parametrize("strategy", [SWITCH, RECREATE])


class Diary(Watcher):
    """Every action with its time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.entries: list[tuple[float, do.Action]] = []

    def before(self, action: do.Action) -> None:
        self.entries.append((self.world.now, action))

    @property
    def names(self) -> list[str]:
        return [type(action).__name__ for _, action in self.entries]

    def times(self, kind: type[Any], container: str = "") -> list[float]:
        found = [(at, a) for at, a in self.entries if isinstance(a, kind)]
        return [at for at, a in found if not container or a.container.id == container]

    def only(self, kind: type[Any]) -> Any:
        [action] = [action for _, action in self.entries if isinstance(action, kind)]
        return action


def serving(
    app: App | None = None, strategy: Strategy = SWITCH, **times: float
) -> tuple[World, Diary]:
    """A host on which release `a` serves since some time; the diary begins now."""
    world = World(strategy, **times)
    world.publish("a", app)
    world.run(60.0)
    return world, write_down(world)


def write_down(world: World) -> Diary:
    world.watch = diary = Diary(world)
    return diary


def active_of(world: World) -> Box:
    assert world.active is not None
    return world.active


def message_of(world: World) -> str:
    assert world.memory.failure is not None
    return world.memory.failure.message
