"""Nested JSON from callers, checked against models of what it has to be."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, ValidationError

from almagent.controlplane.errors import Malformed

FIRST = FailFast()  # of a list: one wrong entry is enough, a body has room for 500,000

REASONS = {
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
    "missing": "is required",
    "model_type": "must be an object",
    "string_too_short": "must not be empty",
    "string_type": "must be a text",
    "too_short": "must not be empty",
}


class Model(BaseModel):
    """What it does not name is not looked at."""

    model_config = ConfigDict(strict=True, frozen=True)


M = TypeVar("M", bound=Model)


def checked(model: type[M], value: Any, purpose: str) -> M:
    """Raises Malformed: "cannot <purpose>: <place> <reason>"; list entries are numbered from 1."""
    try:
        return model.model_validate(value)
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_input=False)[0]
        parts = (part + 1 if isinstance(part, int) else part for part in error["loc"])
        place = "/".join(map(str, parts)) or "it"
        reason = REASONS.get(error["type"])
        told = reason.format_map(error.get("ctx", {})) if reason else error["msg"]
        raise Malformed(f"cannot {purpose}: {place} {told}") from None
