"""Role scopes: what the roles of a user let it do.

    {"version": "2017-05-05", "Statement": [{"Effect": "Allow", "Action": ["stack:*"], "Resource": ["*"]}]}

A Deny that matches always wins. Once any Allow is given, only what an Allow matches is permitted;
without one the default role counts, which allows everything but the master account's own endpoints.
Names are read in any case and single values without brackets, as the documentation writes both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from almagent.controlplane import jsontext
from almagent.controlplane.errors import Malformed


@dataclass(frozen=True, slots=True)
class Statement:
    allow: bool
    actions: tuple[str, ...]
    resources: tuple[str, ...]

    def matches(self, action: str, resource: str) -> bool:
        return any(fnmatchcase(action, one) for one in self.actions) and any(
            fnmatchcase(resource, one) for one in self.resources
        )


def permits(scopes: Iterable[str], action: str, resource: str) -> bool:
    statements = [statement for scope in scopes for statement in parse(scope)]
    if any(one.matches(action, resource) for one in statements if not one.allow):
        return False
    allows = [one for one in statements if one.allow]
    return not allows or any(one.matches(action, resource) for one in allows)


def parse(text: str) -> tuple[Statement, ...]:
    """Raises Malformed for a scope that could not be enforced as it is meant."""
    body = _lowered(jsontext.parse(text, "scope"))
    statements = body.get("statement")
    if not isinstance(statements, list) or not statements:
        raise Malformed("cannot use scope: Statement must be a list")
    return tuple(_statements(statements))


def _statements(statements: list[Any]) -> Iterator[Statement]:
    for number, one in enumerate(map(_lowered, statements), start=1):
        effect = one.get("effect")
        if not isinstance(effect, str) or effect.lower() not in {"allow", "deny"}:
            raise Malformed(f"cannot use scope: Statement/{number}/Effect must be Allow or Deny")
        yield Statement(
            allow=effect.lower() == "allow",
            actions=_texts(one.get("action"), f"Statement/{number}/Action"),
            resources=_texts(one.get("resource"), f"Statement/{number}/Resource"),
        )


def _lowered(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed("cannot use scope: it must be made of JSON objects")
    return {key.lower(): item for key, item in value.items()}


def _texts(value: Any, where: str) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) for one in texts):
        raise Malformed(f"cannot use scope: {where} must be a list of texts")
    return tuple(texts)


TEMPLATES: tuple[dict[str, Any], ...] = tuple(
    {
        "id": identity,
        "name": name,
        "scope": {
            "version": "2017-05-05",
            "Statement": [{"Effect": "Allow", "Action": actions, "Resource": ["*"]}],
        },
    }
    for identity, name, actions in (
        ("admin", "Management Role", ["*"]),
        ("deploy", "Deployment Role", ["stack:*", "template:*"]),
        (
            "read",
            "Read Only Role",
            ["stack:describe*", "template:describe*", "template:compare*"],
        ),
    )
)
