"""One look at the world, and the plan that is being made from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from almagent.core import actions as do
from almagent.core.cast import Cast, Policy, Strategy
from almagent.core.memory import Memory
from almagent.core.model import Desired, Observed

LOOK_AGAIN = (
    0.3  # seconds between two looks at something that nobody tells us about (ports, connections)
)


@dataclass(slots=True)
class Plan:
    actions: list[do.Action] = field(default_factory=list)
    wake_at: float | None = None  # look again then, unless something happens before
    done: bool = False  # Leave only: nothing of ours is left

    def then(self, action: do.Action) -> None:
        self.actions.append(action)

    def wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)


@dataclass(slots=True)
class Scene:
    desired: Desired
    seen: Observed
    memory: Memory
    policy: Policy
    now: float
    cast: Cast
    plan: Plan = field(default_factory=Plan)

    @property
    def switching(self) -> bool:
        return self.policy.strategy is Strategy.SWITCH

    def look_again(self) -> None:
        self.plan.wake(self.now + LOOK_AGAIN)

    def abandon(self) -> None:
        """What was prepared for a document that was taken back is out of date when it comes again."""
        if self.seen.preparation is not None:
            self.plan.then(do.Abandon())
