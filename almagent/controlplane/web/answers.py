"""How times and errors are written on the wire."""

from __future__ import annotations

from datetime import UTC, datetime

from aiohttp import web


def error(status: int, message: str) -> web.Response:
    return web.json_response({"status": "error", "message": message}, status=status)


def time_of_stack(when: float) -> str:
    """2017-08-26T19:31:25+00:00"""
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="seconds")


def time_of_version(when: float) -> str:
    """2017-08-25T10:40:29.000Z"""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
