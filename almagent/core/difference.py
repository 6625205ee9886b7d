"""What a document changes in what runs, without one value of the environment."""

from __future__ import annotations

from almagent.core.frozen import frozen
from almagent.core.model import Container, Spec


@frozen
class Change:
    field: str  # by its name in the document
    was: str
    will_be: str


@frozen
class Variables:
    """Names only."""

    known: bool  # False: what the active container was given is not remembered
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def changes(new: Spec, active: Container | None, old: Spec | None) -> tuple[Change, ...]:
    """`old`: the spec that `active` was made from, None: not remembered."""
    image, ports = (active.image, _listed(active.ports)) if active else ("", "")
    fields = (
        Change("image", image, new.image),
        Change("gitRepo", _url(old), _url(new)),
        Change("gitReference", _reference(old), _reference(new)),
        Change("codeDir", _code_dir(old), _code_dir(new)),
        Change("ports", _ports(old) if old else ports, _ports(new)),
        Change("updated", _number(old), _number(new)),
    )
    return tuple(change for change in fields if change.was != change.will_be)


def variables(new: Spec, old: Spec | None) -> Variables:
    if old is None:
        return Variables(known=False)
    before, after = old.environment, new.environment
    return Variables(
        known=True,
        added=tuple(sorted(after.keys() - before.keys())),
        changed=tuple(sorted(n for n in after.keys() & before.keys() if after[n] != before[n])),
        removed=tuple(sorted(before.keys() - after.keys())),
    )


def _url(spec: Spec | None) -> str:
    return spec.source.url if spec and spec.source else ""


def _reference(spec: Spec | None) -> str:
    return spec.source.reference or "HEAD" if spec and spec.source else ""


def _code_dir(spec: Spec | None) -> str:
    return (spec.code_dir or "the image's own") if spec else ""


def _ports(spec: Spec) -> str:
    return "those the image exposes" if spec.ports is None else _listed(spec.ports)


def _listed(ports: tuple[int, ...]) -> str:
    return ", ".join(map(str, ports))


def _number(spec: Spec | None) -> str:
    return "" if spec is None or spec.updated is None else str(spec.updated)
