"""What callers send: JSON and forms, read once, checked field by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from almagent.controlplane import jsontext
from almagent.controlplane.errors import Malformed

MAX_BODY = 1024 * 1024  # bytes; more is answered 413

Fields = Mapping[str, Any]


async def fields(request: web.Request) -> Fields:
    """The body as an object, from JSON or a form.

    What starts with a brace is JSON whatever its label says: the reference labels JSON as a form,
    and so does curl where it is told nothing else. Raises Malformed.
    """
    text = await _text(request)
    if text.lstrip()[:1] == "{" or _labelled_json(request):
        value = jsontext.parse(text, "request body")
        if not isinstance(value, dict):
            raise Malformed("cannot read request body: it must be a JSON object")
        return value
    try:
        return dict(parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text.strip())))
    except ValueError:
        raise Malformed("cannot read request body: neither JSON nor a form") from None


async def json_object(request: web.Request) -> Any:
    """The body as JSON, whatever its label says, or a form whose one field is JSON. Raises Malformed.

    `curl --data-urlencode @template.json` sends it as a name without a value.
    """
    text = await _text(request)
    if text.lstrip()[:1] not in ("{", "[") and not _labelled_json(request):
        form = parse_qsl(text, keep_blank_values=True)
        text = form[0][1] or form[0][0] if len(form) == 1 else text
    return jsontext.parse(text, "request body")


def required(found: Fields, *names: str) -> tuple[str, ...]:
    """The texts of these fields, none of them empty. Raises Malformed, naming the first that is not."""
    for name in names:
        if not isinstance(found.get(name), str) or not found[name]:
            raise Malformed(f"cannot serve request: {name} is required and must be a text")
    return tuple(found[name] for name in names)


def optional(found: Fields, name: str) -> str | None:
    """Raises Malformed if it is there and no text."""
    value = found.get(name)
    if value is not None and not isinstance(value, str):
        raise Malformed(f"cannot serve request: {name} must be a text")
    return value


def _labelled_json(request: web.Request) -> bool:
    return request.content_type == "application/json" or request.content_type.endswith("+json")


async def _text(request: web.Request) -> str:
    try:
        return (await request.read()).decode()
    except UnicodeDecodeError:
        raise Malformed("cannot read request body: not UTF-8") from None
    except (ConnectionError, web.RequestPayloadError):
        raise Malformed("cannot read request body: it was cut off") from None
