"""Role scopes: what the roles of a user let it do.

    {"version": "2017-05-05", "Statement": [{"Effect": "Allow", "Action": ["stack:*"], "Resource": ["*"]}]}

A Deny that matches always wins. Once any Allow is given, only what an Allow matches is permitted;
without one the default role counts, which allows everything but the master account's own endpoints.
Names are read in any case and single values without brackets, as the documentation writes both.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from almagent.controlplane import jsontext, models


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _lowered(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Texts = Annotated[list[str], models.FIRST, Field(min_length=1), BeforeValidator(_listed)]


class _AnyCase(models.Model):
    @model_validator(mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return {_lowered(k): v for k, v in value.items()} if isinstance(value, dict) else value


class Statement(_AnyCase):
    effect: Annotated[Literal["allow", "deny"], BeforeValidator(_lowered)]
    action: Texts
    resource: Texts

    def matches(self, action: str, resource: str) -> bool:
        return any(fnmatchcase(action, one) for one in self.action) and any(
            fnmatchcase(resource, one) for one in self.resource
        )


class Scope(_AnyCase):
    statement: Annotated[list[Statement], models.FIRST, Field(min_length=1)]


def permits(scopes: Iterable[str], action: str, resource: str) -> bool:
    statements = [statement for scope in scopes for statement in parse(scope).statement]
    if any(one.matches(action, resource) for one in statements if one.effect == "deny"):
        return False
    allows = [one for one in statements if one.effect == "allow"]
    return not allows or any(one.matches(action, resource) for one in allows)


def parse(text: str) -> Scope:
    """Raises Malformed for a scope that could not be enforced as it is meant."""
    return models.checked(Scope, jsontext.parse(text, "scope"), "use scope")


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
