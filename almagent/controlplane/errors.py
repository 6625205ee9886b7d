"""What a caller is told instead of an answer: one line, a status code, no secret."""

from __future__ import annotations

from typing import ClassVar


class Problem(Exception):
    """The request cannot be served; the text goes to the client as it is."""

    status: ClassVar[int]


class Malformed(Problem):
    status = 400


class Unauthorized(Problem):
    status = 401


class Forbidden(Problem):
    status = 403


class Missing(Problem):
    status = 404


class Conflict(Problem):
    status = 409
