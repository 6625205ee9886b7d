"""`almagent run`: the daemon, in the foreground."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from almagent import __version__
from almagent.commands.options import add_settings_arguments, load_settings
from almagent.errors import SettingsError
from almagent.lean import start_lean

if TYPE_CHECKING:
    from almagent.redaction import Redactor
    from almagent.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_settings_arguments(parser)
    parser.add_argument(
        "--once",
        action="store_true",
        help="reconcile until converged (exit 0) or failed (exit 1), then leave; containers stay",
    )


def run(args: argparse.Namespace) -> int:
    start_lean()

    from almagent import logs, original  # noqa: PLC0415  the command line starts fast; only this command needs it
    from almagent.journal import logger  # noqa: PLC0415  likewise
    from almagent.ports import PortError  # noqa: PLC0415  likewise
    from almagent.redaction import Redactor  # noqa: PLC0415  likewise

    log = logger()
    redactor = Redactor()
    loaded = load_settings(args)
    while True:
        logs.configure(loaded.settings.log.level, loaded.settings.log.format, redactor)
        role = {"stack_id": loaded.settings.stack_id, "flag": loaded.settings.flag}
        log.info("agent.starting", version=__version__, settings=str(loaded.file), **role)
        for warning in loaded.warnings:
            log.warning("settings.warning", text=warning)
        for crontab in original.crontabs():
            log.warning("original.starts_too", crontab=str(crontab), see="almagent doctor")
        try:
            code = _serve(loaded.settings, redactor, lambda: load_settings(args), once=args.once)
        except PortError as exc:
            log.error("agent.not_started", reason=str(exc))  # noqa: TRY400  expected: no traceback
            return 1
        except Exception:
            log.exception("agent.failed")
            return 1
        if code is not None:
            log.info("agent.ended", exit_code=code)
            return code
        log.info("agent.reloading")
        try:
            loaded = load_settings(args)
        except SettingsError as exc:  # a mistake made now must not end what runs
            log.error("settings.refused", problems=exc.lines)  # noqa: TRY400  expected: no traceback


def _serve(
    settings: Settings, redactor: Redactor, check_settings: Callable[[], object], *, once: bool
) -> int | None:
    """The exit code, None: to be begun anew. Raises PortError.

    A second agent leaves at once: what an agent needs is loaded only when no other holds the lock.
    """
    from almagent.alone import demand_to_be_alone  # noqa: PLC0415  likewise

    demand_to_be_alone(settings.runtime_dir)

    import asyncio  # noqa: PLC0415  likewise

    from almagent.daemon import Goal, Outcome, serve  # noqa: PLC0415  likewise

    goal = Goal.CONVERGE if once else Goal.SERVE
    outcome = asyncio.run(serve(settings, redactor, goal, check_settings))
    if outcome is Outcome.RELOAD:
        return None
    return int(outcome is Outcome.FAILED or (once and outcome is Outcome.STOPPED))
