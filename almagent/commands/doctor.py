"""`almagent doctor`: what is wrong on this host, and what to do about it."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from almagent.commands import text
from almagent.commands.options import add_settings_arguments, load_settings
from almagent.lean import be_brief

if TYPE_CHECKING:
    from almagent.doctor import Result

COLOURS = {"ok": text.GREEN, "warn": text.YELLOW, "fail": text.RED}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_settings_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object; its ids are stable")


def run(args: argparse.Namespace) -> int:
    be_brief()

    import asyncio  # noqa: PLC0415  the command line starts fast; only this command needs it

    from almagent.doctor import examine, healthy  # noqa: PLC0415  loads all adapters
    from almagent.settings_file import named  # noqa: PLC0415  likewise

    config = named(args.config, os.environ)
    results = asyncio.run(examine(lambda: load_settings(args), config))
    print(_json(results) if args.json else describe(results))
    return 0 if healthy(results) else 1


def _json(results: list[Result]) -> str:
    import json  # noqa: PLC0415  the text needs none

    checks = [
        {"id": r.id, "level": r.finding.level, "text": r.finding.text, "fix": r.finding.fix}
        for r in results
    ]
    return json.dumps({"checks": checks})


def describe(results: list[Result]) -> str:
    margin = max(len(result.id) for result in results) + 8
    lines = []
    for result in results:
        finding = result.finding
        level = text.paint(f"{finding.level:<4}", COLOURS[finding.level])
        lead = f"{level}  {result.id:<{margin - 6}}"
        lines.append(text.hanging(lead, text.clean(finding.text), margin))
        if finding.fix:
            lines.append(_fix(" " * margin + "-> ", text.clean(finding.fix)))
    return "\n".join(lines)


def _fix(lead: str, fix: str) -> str:
    """Broken between commands only, so that each can be copied, however long it is."""
    room = text.columns() - len(lead)
    first, *rest = fix.split("; ")
    lines = [first]
    for command in rest:
        if len(f"{lines[-1]}; {command};") <= room:
            lines[-1] += f"; {command}"
        else:
            lines.append(command.removeprefix("then "))
    return lead + (";\n" + " " * len(lead)).join(lines)
