"""The ALM API v3 without I/O: requests as data, answers judged. Its words are in this module only.

Paths, parameters and status words are those of the API reference, sections "OAuth Authentication" and
"Alm-Agent". Labels lie, so `Content-Type` and `charset` are never looked at: a body is JSON if it parses.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any
from urllib.parse import urlsplit

from almagent.core.backoff import parse_retry_after
from almagent.core.frozen import frozen
from almagent.core.model import AgentStatus, ContainerStatus, Secret, Status

MESSAGE_LIMIT = 512  # characters of a status message
WORD_LIMIT = 64  # characters of a status word; an image writes its own
ID_LIMIT = 128  # characters of a container id; Docker's have 64
TOKEN_LIFETIME = 600.0  # seconds that a token is taken to live when the API does not say
TOKEN_LIMIT = 16384  # characters; a longer one would not fit into a header
ETAG_LIMIT = 1024  # characters

# Client errors that do not judge the request itself: "later", or the rights and the paths of today.
_TRY_AGAIN = frozenset({403, 404, 405, 407, 408, 421, 425, 429})
_LOGIN_REFUSED = frozenset({400, 401, 403})  # 400: OAuth's invalid_client


class WireError(Exception):
    """Not the answer that was asked for. The text is one line and holds no secret.

    `final`: the same request will never succeed. `retry_after`: seconds that the API asked to wait.
    """

    def __init__(
        self, message: str, *, final: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.final = final
        self.retry_after = retry_after


class Unauthorized(WireError):
    """The token is not valid, or not any more."""


class LoginRejected(WireError):
    """The API answered that these credentials are not good."""


@frozen
class Request:
    name: str  # the last part of the path, for metrics
    purpose: str  # completes "cannot ..."
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)  # may hold the client secret
    wants_body: bool = True  # False: the status line of the answer says all


@frozen
class Answer:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    at: float  # seconds since the epoch: dates in headers are relative to it


@frozen
class Identity:
    """Who speaks: the parameters that all statuses have."""

    stack_id: str
    agent_id: str
    instance_id: str = ""  # "": not known


@frozen
class Token:
    secret: Secret
    lifetime: float  # seconds


@frozen
class Document:
    body: bytes  # UTF-8 JSON, or empty
    etag: str  # "" when the API gave none


# --- requests ------------------------------------------------------------------------------------


def login(client_id: str, client_secret: Secret) -> Request:
    fields = {
        "grant_type": "client_credentials",
        "client_id": client_id,
        "client_secret": client_secret.reveal(),
    }
    return _post("access_token", "log in", "/v3/access_token", fields, wants_body=True)


def ask_document(stack_id: str, flag: str, etag: str) -> Request:
    return Request(
        name="config",
        purpose="fetch the document",
        method="GET",
        path="/v3/alm/agent/config",
        query={"stack_id": stack_id, "flag": flag},
        headers={"If-None-Match": etag} if etag else {},
    )


def say(status: Status, who: Identity) -> Request:
    status = fitted(status)
    fields = {"stack_id": who.stack_id, "agent_id": who.agent_id}
    if who.instance_id:
        fields["instance_id"] = who.instance_id
    if isinstance(status, ContainerStatus):
        name = "container_status"
        fields |= {"container_id": status.container_id, "status": status.word}
    else:
        name = "agent_status"
        fields["status"] = status.word.value
        if status.message:
            fields["message"] = status.message
    purpose = f"report {fields['status']}"
    return _post(name, purpose, f"/v3/alm/agent/{name}", fields, wants_body=False)


def fitted(status: Status) -> Status:
    """`status` with every text as long as the wire takes it, and valid UTF-8."""
    if isinstance(status, AgentStatus):
        return replace(status, message=_clean(status.message, MESSAGE_LIMIT))
    return replace(
        status,
        container_id=_clean(status.container_id, ID_LIMIT),
        word=_clean(status.word, WORD_LIMIT),
    )


def _clean(text: str, limit: int) -> str:
    return text[:limit].encode(errors="replace").decode()  # a lone surrogate has no UTF-8 form


def _post(
    name: str, purpose: str, path: str, fields: Mapping[str, str], *, wants_body: bool
) -> Request:
    return Request(
        name=name,
        purpose=purpose,
        method="POST",
        path=path,
        headers={"Content-Type": "application/json"},
        body=json.dumps(fields).encode(),
        wants_body=wants_body,
    )


# --- answers -------------------------------------------------------------------------------------


def read_token(answer: Answer) -> Token:
    """Raises LoginRejected when the credentials are not good, WireError for any other answer."""
    if answer.status in _LOGIN_REFUSED:
        raise LoginRejected(
            f"cannot log in: the client secret was refused (HTTP {answer.status})", final=True
        )
    _demand_success(answer, "log in")
    fields = _parse(answer.body, "log in")
    if not isinstance(fields, dict):
        raise WireError("cannot log in: the answer is not a JSON object")
    kind, text = fields.get("token_type", "Bearer"), fields.get("access_token")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise WireError("cannot log in: token_type is not Bearer")
    if not isinstance(text, str) or not _fits_a_header(text, TOKEN_LIMIT):
        raise WireError("cannot log in: access_token is not a token")
    return Token(Secret(text), _lifetime(fields.get("expires_in")))


def read_document(answer: Answer, *, conditional: bool) -> Document | None:
    """None: unchanged. What the JSON means is not judged here. `conditional`: an ETag was sent."""
    purpose = "fetch the document"
    if answer.status == 304 and conditional:
        return None
    _demand_success(answer, purpose)
    body = answer.body.strip()
    if body:
        _parse(body, purpose)
    etag = answer.headers.get("etag", "")
    return Document(body, etag if _fits_a_header(etag, ETAG_LIMIT) else "")


def read_acknowledgement(answer: Answer, purpose: str) -> None:
    """Any 2xx is an acknowledgement; raises WireError for the rest."""
    _demand_success(answer, purpose)


def _demand_success(answer: Answer, purpose: str) -> None:
    status = answer.status
    if 200 <= status < 300:
        return
    text = f"cannot {purpose}: HTTP {status}"
    if status == 401:
        raise Unauthorized(text)
    if 300 <= status < 400:
        raise WireError(f"{text}{_target(answer)}, redirects are not followed")
    raise WireError(
        text,
        final=400 <= status < 500 and status not in _TRY_AGAIN,
        retry_after=parse_retry_after(answer.headers.get("retry-after"), answer.at),
    )


def _target(answer: Answer) -> str:
    """Where a redirect leads, without the parts that may hold a secret."""
    try:
        target = urlsplit(answer.headers.get("location", ""))
    except ValueError:
        return ""
    host = (target.hostname or "")[:253]
    return (
        f" to {target.scheme[:5]}://{host}"
        if host.isascii() and host.isprintable() and host
        else ""
    )


def _parse(body: bytes, purpose: str) -> Any:
    try:
        return json.loads(body.decode("utf-8-sig"), parse_constant=_not_json, parse_float=_finite)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        # From None: the text of these errors quotes the body, which may hold secrets.
        raise WireError(f"cannot {purpose}: the answer is not JSON") from None


def _not_json(constant: str) -> float:
    raise ValueError(constant)  # NaN and Infinity, which Python would take


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _lifetime(expires_in: object) -> float:
    """`expires_in` as seconds. Some encoders write numbers as text."""
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float | str):
        return TOKEN_LIFETIME
    try:
        seconds = float(expires_in)
    except (ValueError, OverflowError):
        return TOKEN_LIFETIME
    return seconds if math.isfinite(seconds) and seconds > 0 else TOKEN_LIFETIME


def _fits_a_header(text: str, limit: int) -> bool:
    return 0 < len(text) <= limit and text.isascii() and text.isprintable()
