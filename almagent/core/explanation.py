"""A plan in words: what would be done, what differs, and why nothing is done when nothing is."""

from __future__ import annotations

from collections.abc import Callable

from almagent.core import actions as do
from almagent.core.difference import Change, Variables, changes, variables
from almagent.core.frozen import frozen
from almagent.core.memory import Failure
from almagent.core.model import Container, Spec
from almagent.core.planner import Plan


@frozen
class Look:
    """What was seen and planned. Times are monotonic seconds."""

    flag: str
    defined: bool  # the document says something to run
    leaving: str  # why nothing is to run here any more, "" otherwise
    wanted: Spec | None  # None: keep what runs
    active: Container | None
    old: Spec | None  # of the active container; None: not remembered
    right: bool  # the active container is what is wanted
    failure: Failure | None  # of the wanted release
    todo: Plan
    now: float
    scrub: Callable[[str], str]  # takes secrets out: messages quote containers and servers


@frozen
class Step:
    action: str  # the planner's word
    text: str


@frozen
class Explanation:
    pending: bool  # there is something to do, now or after a pause
    why: str
    active: str | None  # revision
    desired: str | None  # revision
    commit: str | None  # that runs now
    changes: tuple[Change, ...]
    variables: Variables
    steps: tuple[Step, ...]  # now; more follow from what they bring
    wait: float | None  # seconds until it looks again, if it waits for something


def explain(look: Look) -> Explanation:
    wanted, active, todo = look.wanted, look.active, look.todo
    new = wanted if wanted and (active is None or active.revision != wanted.revision) else None
    held = look.failure is not None and look.failure.retry_at is None
    return Explanation(
        pending=bool(todo.actions) or (wanted is not None and not look.right and not held),
        why=look.scrub(_why(look)),
        active=active.revision if active else None,
        desired=wanted.revision if wanted else None,
        commit=active.commit or None if active else None,
        changes=changes(new, active, look.old) if new else (),
        variables=variables(new, look.old if active else _NOTHING)
        if new
        else Variables(known=True),
        steps=tuple(Step(type(a).__name__.lower(), look.scrub(describe(a))) for a in todo.actions),
        wait=None if todo.wake_at is None else max(0.0, todo.wake_at - look.now),
    )


_NOTHING = Spec(revision="", image="")


def _why(look: Look) -> str:
    wanted, active, failure = look.wanted, look.active, look.failure
    if look.leaving:
        return f"this instance is going away: {look.leaving}"
    if wanted is None:
        return f"nothing is defined for flag {look.flag}: {_kept(active)}"
    release = f"release {wanted.revision[:8]}"
    if not look.defined:
        return f"nothing is defined for flag {look.flag}: {release}, the last good one, is kept"
    if look.right:
        return f"{release} is active and is what the document asks for"
    return f"{release} {_failed(failure, look.now) if failure else _replaces(wanted, active)}"


def _failed(failure: Failure, now: float) -> str:
    if failure.retry_at is None:
        return f"was switched back and waits for another document: {failure.message}"
    wait = max(0.0, failure.retry_at - now)
    return f"failed and is tried again in {wait:.0f} s: {failure.message}"


def _replaces(wanted: Spec, active: Container | None) -> str:
    if active is None:
        return "is to be started; nothing serves now"
    if active.revision == wanted.revision:
        return "runs, but its ports are not published as the strategy wants it"
    return f"is to replace release {active.revision[:8]}"


def _kept(active: Container | None) -> str:
    return f"release {active.revision[:8]} keeps running" if active else "nothing is started"


def describe(action: do.Action) -> str:  # noqa: C901, PLR0911, PLR0912 - one arm an action
    match action:
        case do.Prepare(spec=spec):
            code = f" and fetch the code from {spec.source.url}" if spec.source else ""
            return f"pull {spec.image}{code}"
        case do.Create(release=release):
            return f"create a candidate from {release.image}"
        case do.Start(container=c, active=True):
            return f"start container {c.name} again"
        case do.Start(container=c):
            return f"start the candidate {c.name}"
        case do.Watch(container=c):
            return f"wait until the candidate {c.name} is ready"
        case do.Discard(container=c, reason=reason):
            return f"remove the candidate {c.name}: {reason}"
        case do.Reject(message=message):
            return f"give the release up for now: {message}"
        case do.Switch(container=c):
            return f"switch all traffic to {c.name}"
        case do.Adopt(container=c):
            return f"take {c.name}, which serves, for the active container"
        case do.Route(targets=targets):
            ports = ", ".join(map(str, sorted(targets)))
            return f"mend the routes of ports {ports}" if targets else "close all ports"
        case do.KeepRestarting(container=c):
            return f"have Docker restart {c.name} by itself"
        case do.Revert(to=to, reason=reason):
            return f"switch back to {to.name}: {reason}"
        case do.Retire(container=c):
            return f"let the open connections of {c.name} finish"
        case do.Terminate(container=c):
            return f"stop {c.name}"
        case do.Kill(container=c):
            return f"kill {c.name}"
        case do.Remove(container=c):
            return f"remove {c.name}"
        case do.RunHook(container=c, path=path):
            return f"run {path} in {c.name}"
        case do.Collect():
            return "remove images and code that nothing needs any more"
        case do.Abandon():
            return "give up the preparation under way"
