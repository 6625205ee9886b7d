"""`almagent stop`: drains, stops and removes this agent's containers; the daemon does it if one runs."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from almagent.asking import CannotAsk, NotRunning, ask
from almagent.commands.options import add_settings_arguments, load_settings
from almagent.commands.runtime import runtime_directory

EVERY = 0.3  # seconds between two looks
PATIENCE = 600.0  # seconds; connections get drain_timeout to finish
REPORT_PATIENCE = 15.0  # seconds that the last statuses get to be acknowledged


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_settings_arguments(parser)


def run(args: argparse.Namespace) -> int:
    directory = runtime_directory(args)
    try:
        ask(directory, "/v1/stop", "POST")
    except NotRunning:
        return _by_ourselves(args)
    except CannotAsk as exc:
        print(exc, file=sys.stderr)
        return 1
    return _wait(directory)


def _wait(directory: Path) -> int:
    """The daemon is at it: show how far it is."""
    told, stopped_at, deadline = "", 0.0, time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            status = ask(directory, "/v1/status")
        except (NotRunning, CannotAsk) as exc:
            print(f"the daemon has ended before it was done: {exc}", file=sys.stderr)
            return 1
        line = _progress(status)
        if line != told:
            print(line, flush=True)
            told = line
        if status["phase"] == "stopped":
            stopped_at = stopped_at or time.monotonic()
            pending = status["outbox"]["pending"]
            if not pending:
                return 0
            if time.monotonic() - stopped_at > REPORT_PATIENCE:
                print(f"{pending} statuses are not acknowledged yet; they will be sent", flush=True)
                return 1
        time.sleep(EVERY)
    print(f"not done within {PATIENCE:g} s; the agent goes on with it", file=sys.stderr)
    return 1


def _progress(status: dict[str, Any]) -> str:
    containers = [c["container_id"][:12] for c in (status["active"], status["candidate"]) if c]
    what = f" (container {', '.join(containers)})" if containers else ""
    return f"{status['phase']}: {status['doing']}{what}"


def _by_ourselves(args: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415  a daemon's answer is had without

    from almagent import logs  # noqa: PLC0415  likewise
    from almagent.daemon import Goal, Outcome, run  # noqa: PLC0415  likewise
    from almagent.ports import PortError  # noqa: PLC0415  likewise
    from almagent.redaction import Redactor  # noqa: PLC0415  likewise

    settings = load_settings(args).settings
    redactor = Redactor()
    logs.configure(settings.log.level, settings.log.format, redactor)
    print("no agent is running: doing it here", flush=True)
    try:
        outcome = asyncio.run(run(settings, redactor, Goal.LEAVE))
    except PortError as exc:
        print(exc, file=sys.stderr)
        return 1
    if outcome not in {Outcome.DONE, Outcome.UNTOLD}:
        print("not done; see the log lines above", file=sys.stderr)
        return 1
    print("stopped: this agent's containers and routes are gone")
    if outcome is Outcome.UNTOLD:
        print("not all statuses are acknowledged yet; the next run or stop sends them")
        return 1
    return 0
