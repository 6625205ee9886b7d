"""Asking the running daemon over its unix socket, with nothing but the standard library: it starts fast."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from almagent.socketpath import SOCKET, short_name

ANSWERS = {
    "/v1/status": frozenset(
        {
            *("version", "pid", "agent_id", "instance_id", "stack_id", "flag", "phase", "doing"),
            *("strategy", "desired", "active", "candidate", "last_poll", "last_error", "outbox"),
            "interruption",
        }
    ),
    "/v1/stop": frozenset({"accepted"}),
}
"""What an agent's answer has at least."""

TIMEOUT = 5.0  # seconds for an answer; the daemon gives it from memory


class NotRunning(Exception):
    """Nobody listens on the socket."""


class CannotAsk(Exception):
    """Somebody may listen, but there is no answer. One line for the operator."""


def ask(directory: Path, path: str, method: str = "GET") -> dict[str, Any]:
    """Raises NotRunning, CannotAsk."""
    address = directory / SOCKET
    connection = _Connection(address)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read()
    except (FileNotFoundError, ConnectionRefusedError) as exc:
        raise NotRunning(f"almagent is not running: nobody answers on {address}") from exc
    except PermissionError as exc:
        raise CannotAsk(f"cannot ask {address}: permission denied; root may") from exc
    except TimeoutError as exc:
        raise CannotAsk(f"cannot ask {address}: no answer within {TIMEOUT:g} s") from exc
    except (OSError, http.client.HTTPException) as exc:
        raise CannotAsk(f"cannot ask {address}: the connection broke") from exc
    finally:
        connection.close()
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        fields = None
    if answer.status >= 300 or not isinstance(fields, dict) or not ANSWERS[path] <= fields.keys():
        raise CannotAsk(f"cannot ask {address}: HTTP {answer.status}, not the answer of an agent")
    return fields


class _Connection(http.client.HTTPConnection):
    def __init__(self, address: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._address = address

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        with short_name(self._address) as name:
            self.sock.connect(name)
