"""`almagent run`: the daemon, in the foreground."""

from __future__ import annotations

import argparse

from almagent.commands.options import add_settings_arguments, load_settings
from almagent.errors import SettingsError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_settings_arguments(parser)
    parser.add_argument(
        "--once",
        action="store_true",
        help="reconcile until converged (exit 0) or failed (exit 1), then leave; containers stay",
    )


def run(args: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415  the command line starts fast; only this command needs it

    import structlog  # noqa: PLC0415  likewise

    from almagent import logs  # noqa: PLC0415  likewise
    from almagent.daemon import Goal, Outcome, run  # noqa: PLC0415  likewise
    from almagent.ports import PortError  # noqa: PLC0415  likewise

    log = structlog.get_logger(__name__)
    redactor = logs.Redactor()
    goal = Goal.CONVERGE if args.once else Goal.SERVE
    loaded = load_settings(args)
    while True:
        logs.configure(loaded.settings.log.level, loaded.settings.log.format, redactor)
        for warning in loaded.warnings:
            log.warning("settings.warning", text=warning)
        try:
            outcome = asyncio.run(run(loaded.settings, redactor, goal))
        except PortError as exc:
            log.error("agent.not_started", reason=str(exc))  # noqa: TRY400  expected: no traceback
            return 1
        except Exception:
            log.exception("agent.failed")
            return 1
        if outcome is not Outcome.RELOAD:
            return int(outcome.value)
        log.info("agent.reloading")
        try:
            loaded = load_settings(args)
        except SettingsError as exc:  # a mistake made now must not end what runs
            log.error("settings.refused", problems=exc.lines)  # noqa: TRY400  expected: no traceback
