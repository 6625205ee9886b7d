"""The control plane as a process of its own, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import shlex
import signal
import sys
from pathlib import Path

import structlog

from almagent.controlplane.server import ControlPlaneServer
from almagent.controlplane.store import CannotOpen

_HELP = """\
ALM API v3 on {url}, state in {state}

Log in as the master account; {login_file} (readable by its owner only) is the request:
  TOKEN=$(curl -sS {url}/v3/access_token -H 'Content-Type: application/json' -d {at_login_file} \\
    | sed 's/.*"access_token": "\\([^"]*\\)".*/\\1/')
Apply a template; the answer holds the new stack's stack_id:
  curl -sS {url}/v3/alm/template -H "Authorization: Bearer $TOKEN" -d @template.json
Change it:
  curl -sS -X PUT {url}/v3/alm/template/STACK_ID -H "Authorization: Bearer $TOKEN" -d @template.json
What its agents log in with (client_id is the stack_id, client_secret the auth_token):
  curl -sS {url}/v3/alm/stack/STACK_ID -H "Authorization: Bearer $TOKEN"
What they have reported:
  curl -sS {url}/v3/alm/stack/STACK_ID/status -H "Authorization: Bearer $TOKEN"

A layer that an agent is to deploy has a flag and a container section:
  {{"configurations": [{{"flag": "Web01", "container": {{"image": "REGISTRY/IMAGE:TAG", "ports": [80]}}}}]}}
New master credentials: stop, remove {login_file}, start. Ctrl-C stops.
"""
_PLAIN = "Traffic is not encrypted: put a proxy that speaks TLS before it, or keep it on a private network.\n"


async def serve(state: Path, host: str, port: int) -> int:
    """Until SIGTERM or SIGINT; the exit code."""
    _log_to_stderr()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with ControlPlaneServer(state, host, port) as server:
            sys.stdout.write(_explained(server, state, host))
            sys.stdout.flush()
            await stop.wait()
    except CannotOpen as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    except OSError as exc:
        why = str(exc.strerror).rpartition(": ")[2]  # asyncio repeats the address before it
        sys.stderr.write(f"cannot listen on {host}:{port}: {why}\n")
        return 1
    return 0


def _log_to_stderr() -> None:
    """One line of JSON an event; tracebacks without the values of variables, which may be secrets.

    The HTTP library's own log only tells of clients that do not speak HTTP.
    """
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _explained(server: ControlPlaneServer, state: Path, host: str) -> str:
    login_file = server.store.login_file
    text = _HELP.format(
        url=server.url,
        state=state,
        login_file=login_file,
        at_login_file=shlex.quote(f"@{login_file}"),
    )
    return text if host in {"127.0.0.1", "::1", "localhost"} else text + _PLAIN
