"""The command line: which commands there are, and how any of them ends.

A command is a module `almagent.commands.NAME` with `add_arguments(parser)` and `run(args) -> exit code`.
Only the one that was asked for is imported: `--version` and `--help` answer at once.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from almagent import __version__, streams
from almagent.errors import SettingsError

COMMANDS = {
    "run": "run the agent in the foreground",
    "plan": "show what `run` would do now and why, changing nothing",
    "status": "ask the running agent how it is",
    "doctor": "check everything the agent needs, with the fix for what is wrong",
    "register": "prove this host's credentials, report it and write its settings file",
    "stop": "drain, stop and remove this agent's containers and routes",
    "demo": "show the whole loop on this machine, with no cloud and no network",
    "controlplane": "serve the self-hosted ALM API from one SQLite file",
}

EXIT_CODES = {
    "run": "0 ended in good order (--once: converged), 1 failed or --once cut short, 2 settings",
    "plan": "0 nothing to do, 3 changes, 1 cannot tell, 2 settings or document",
    "status": "0, 3 the agent is not running, 1 it cannot be asked",
    "doctor": "0 nothing fails, 1 something does",
    "register": "0 registered, 1 the API cannot be asked or refuses, 2 settings",
    "stop": "0 all is gone and reported, 1 not, 2 settings",
    "demo": "0 all went as it should, 1 not",
    "controlplane": "0 ended in good order, 1 cannot serve",
}

FAILED = 1
MISUSED = 2  # as argparse itself does
INTERRUPTED = 130  # what a shell reports for a program that SIGINT ended

OPTION = re.compile(r"(--[\w-]+)(?:=.*)?", re.ASCII | re.DOTALL)


def main(argv: Sequence[str] | None = None) -> int:
    streams.mend()
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()
    except SettingsError as exc:
        from almagent.commands.text import clean  # noqa: PLC0415  the command line starts fast

        sys.stderr.writelines(f"{clean(line)}\n" for line in exc.lines)
        return MISUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except (BrokenPipeError, streams.CannotWrite) as exc:
        streams.let_go_of_stdout()
        if isinstance(exc, streams.CannotWrite):
            sys.stderr.write(f"{exc}\n")
        return FAILED


def _run(argv: Sequence[str]) -> int:
    name = argv[0] if argv and argv[0] in COMMANDS else None
    module: Any = importlib.import_module(f"almagent.commands.{name}") if name else None
    parser = _parser(name, module)
    args, unknown = parser.parse_known_args(argv if name else argv[:1])
    if unknown:
        parser.error(f"unrecognized arguments: {_options(unknown)}(values are not shown)")
    if module is None:
        parser.print_help(sys.stderr)
        return MISUSED
    code: int = module.run(args)
    return code


def _options(words: Sequence[str]) -> str:
    """Their names without a value: it may be a secret, and cloud-init keeps what is printed."""
    return "".join(f"{found[1]} " for word in words if (found := OPTION.fullmatch(word)))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Without the value of `--json=VALUE`, likewise."""
        before, fault, _value = message.partition("ignored explicit argument")
        super().error(before + fault)


def _parser(name: str | None, module: Any) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="almagent",
        description="Runs the container of this host's layer and keeps it running.",
        epilog="`almagent COMMAND --help` tells the rest. When something is wrong: `almagent doctor`.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"almagent {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in [name] if name else COMMANDS:
        summary = COMMANDS[command]
        subparser = commands.add_parser(
            command,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=f"exit code: {EXIT_CODES[command]}",
            allow_abbrev=False,
        )
        if command == name:
            module.add_arguments(subparser)
    return parser
