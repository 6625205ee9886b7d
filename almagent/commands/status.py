"""`almagent status`: what the running daemon tells of itself."""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from almagent.asking import CannotAsk, NotRunning, ask
from almagent.commands import text
from almagent.commands.options import add_settings_arguments
from almagent.commands.runtime import runtime_directory
from almagent.errors import SettingsError
from almagent.places import RUNTIME_DIR

NOT_RUNNING = 3
EVERY = 1.0  # seconds between two looks of --watch
DIGEST = len("sha256:") + 12  # as much of it as Docker shows; --json has the whole
CLEAR = "\x1b[H\x1b[2J"
COLOURS = {"uptodate": text.GREEN, "error": text.RED, "stopped": text.YELLOW}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_settings_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--watch", action="store_true", help="look again every second until Ctrl-C")


def run(args: argparse.Namespace) -> int:
    if not args.watch:
        return _show(args)
    try:
        while True:
            if sys.stdout.isatty():
                print(CLEAR, end="", flush=True)  # before anything goes to stderr
            _show(args)
            sys.stdout.flush()
            time.sleep(EVERY)
    except KeyboardInterrupt:
        return 0


def _show(args: argparse.Namespace) -> int:
    """Where the settings cannot be read it asks at the default place; that nobody answers there proves nothing."""
    try:
        directory, known = runtime_directory(args), True
    except SettingsError as exc:
        print(text.clean(str(exc)), file=sys.stderr)
        directory, known = Path(RUNTIME_DIR), False
    try:
        status = ask(directory, "/v1/status")
    except NotRunning as exc:
        print(exc, file=sys.stderr)
        return NOT_RUNNING if known else 1
    except CannotAsk as exc:
        print(exc, file=sys.stderr)
        return 1
    print(json.dumps(status) if args.json else describe(status))
    return 0


def describe(status: dict[str, Any]) -> str:
    phase = text.paint(status["phase"], COLOURS.get(status["phase"], text.YELLOW))
    lead = f"almagent {status['version']}  "
    margin = len(lead) + len(status["phase"]) + 2
    head = text.hanging(f"{lead}{phase}  ", text.clean(status["doing"]), margin)
    return f"{head}\n\n{text.table(_rows(status))}"


def _rows(status: dict[str, Any]) -> list[tuple[str, str]]:
    error, outbox, gone = status["last_error"], status["outbox"], status["interruption"]
    waiting = f"{outbox['pending']} waiting, the oldest {_ago(outbox['oldest'])}"
    return [
        ("stack", f"{status['stack_id']}, flag {status['flag']}"),
        ("agent", f"{status['agent_id']}, process {status['pid']}"),
        ("instance", status["instance_id"] or "not in a known cloud"),
        ("strategy", status["strategy"]),
        ("desired", _desired(status["desired"])),
        *_container("active", status["active"]),
        *_container("candidate", status["candidate"]),
        ("last poll", f"{status['last_poll']['result']}, {_ago(status['last_poll']['at'])}"),
        ("last error", f"{_ago(error['at'])}: {error['message']}" if error else "none"),
        ("outbox", waiting if outbox["pending"] else "empty"),
        ("interruption", _interruption(gone) if gone else "none"),
    ]


def _desired(desired: dict[str, Any]) -> str:
    if desired["revision"] is None:
        return "nothing"
    updated = "" if desired["updated"] is None else f", updated {desired['updated']}"
    return f"{desired['revision'][:8]}{updated}"


def _container(role: str, c: dict[str, Any] | None) -> list[tuple[str, str]]:
    if c is None:
        return [(role, "none")]
    since = f", started {_ago(c['since'])}" if c["since"] else ""
    ports = ", ".join(map(str, c["ports"])) or "none"
    return [
        (role, f"{c['revision'][:8]} in container {c['container_id'][:12]}, {c['state']}{since}"),
        ("  image", c["image"]),
        *([("  digest", c["image_digest"][:DIGEST])] if c["image_digest"] else []),
        *([("  commit", c["commit"])] if c["commit"] else []),
        ("  ports", ports),
    ]


def _interruption(gone: dict[str, Any]) -> str:
    deadline = f", by {gone['deadline']}" if gone["deadline"] else ""
    return f"{gone['reason']}{deadline}"


def _ago(at: str | None) -> str:
    if at is None:
        return "not yet"
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"
