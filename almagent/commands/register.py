"""`almagent register`: the first command on a new host, usually cloud-init's."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from almagent.commands import given
from almagent.commands.options import FLAGS, add_settings_arguments
from almagent.errors import SettingsError
from almagent.lean import be_brief
from almagent.places import SETTINGS_FILE

if TYPE_CHECKING:
    from almagent.settings_layers import Layer
    from almagent.settings_load import Loaded

KEYS = {
    "stack_id": ("--stack-id", "ID", "the stack this host belongs to"),
    "flag": ("--flag", "FLAG", "its layer"),
    "user_id": ("--user-id", "ID", "the container's MO_USER_ID"),
    "api.url": ("--url", "URL", "the ALM API (default: https://api.mobingi.com)"),
    "api.client_id": ("--client-id", "ID", "default: the stack id"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("registration", "over the environment, over --from")
    for key, (flag, metavar, summary) in KEYS.items():
        group.add_argument(flag, dest=key, metavar=metavar, help=summary)
    group.add_argument(
        "--client-secret-file",
        dest="keep_in",
        metavar="FILE",
        help="where the client secret stays; - reads it from stdin into the settings file; "
        "without this it is taken from $ALMAGENT_API__CLIENT_SECRET, else from stdin",
    )
    group.add_argument(
        "--from", dest="source", metavar="FILE", help="settings to begin with (- for stdin)"
    )
    group.add_argument(
        "--force", action="store_true", help="replace a settings file that says something else"
    )
    add_settings_arguments(
        parser, f"settings file to write, mode 0600 (default: $ALMAGENT_CONFIG, {SETTINGS_FILE})"
    )


def run(args: argparse.Namespace) -> int:
    redactor = be_brief()

    import asyncio  # noqa: PLC0415  the command line starts fast; only this command needs it

    from almagent.ports import PortError  # noqa: PLC0415  likewise
    from almagent.registration import register  # noqa: PLC0415  loads the adapters
    from almagent.settings_file import named  # noqa: PLC0415  likewise
    from almagent.settings_text import render  # noqa: PLC0415  likewise

    file = named(args.config, os.environ) or Path(SETTINGS_FILE)
    text = render(_gather(args))
    loaded = _check(text, file)
    _demand_same_or_force(file, text, force=args.force)
    redactor.learn(loaded.settings.api.client_secret)
    try:
        agent_id = asyncio.run(register(loaded.settings, file, text))
    except PortError as exc:
        print(redactor.scrub(str(exc)), file=sys.stderr)
        return 1
    s = loaded.settings
    print(f"registered: stack {s.stack_id}, flag {s.flag}, agent {agent_id}; settings in {file}")
    return 0


def _gather(args: argparse.Namespace) -> Layer:
    from almagent.settings_layers import (  # noqa: PLC0415  likewise
        PREFIX,
        Given,
        command_line,
        environment,
        file_layer,
    )

    values = {key: getattr(args, key) for key in (*KEYS, *FLAGS)}
    flags = {key: value for key, value in values.items() if value is not None}
    flags |= dict(args.assignments)
    layer: Layer = {}
    if args.source:
        file, text = Path(given.place(args.source)), given.read_text(args.source)
        layer, _, problems = file_layer(file, text)
        if problems:
            raise SettingsError(problems)
    own = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    layer |= environment(own, layer)
    layer |= command_line(flags)
    if args.keep_in not in (None, "-"):
        path = str(Path(args.keep_in).absolute())
        layer["api", "client_secret_file"] = Given(path, "command line: --client-secret-file")
    elif args.keep_in == "-" or _is_secret_missing(args, layer):
        layer["api", "client_secret"] = Given(given.read_text("-").strip(), "stdin")
    return layer


def _is_secret_missing(args: argparse.Namespace, layer: Layer) -> bool:
    """Then stdin has it, if nothing else is read from there and nobody sits at it."""
    keys = {("api", "client_secret"), ("api", "client_secret_file")}
    return not (keys & layer.keys() or args.source == "-" or sys.stdin.isatty())


def _check(text: str, file: Path) -> Loaded:
    """As `run` will read it. The text waits in memory: it holds the secret."""
    from almagent.settings_load import load  # noqa: PLC0415  likewise

    with open(os.memfd_create(file.name), "w+", encoding="utf-8") as memory:  # noqa: PTH123  a descriptor
        memory.write(text)
        memory.flush()
        name = f"/proc/self/fd/{memory.fileno()}"
        environ = {
            key: value for key, value in os.environ.items() if not key.startswith("ALMAGENT_")
        }
        try:
            return load(environ, config=Path(name))
        except SettingsError as exc:
            raise SettingsError(line.replace(name, str(file)) for line in exc.lines) from None


def _demand_same_or_force(file: Path, text: str, *, force: bool) -> None:
    from almagent.settings_file import CannotRead, read_text  # noqa: PLC0415  likewise

    if file.is_dir():
        raise SettingsError([f"{file}: is a directory; it must be the name of a file"])
    try:
        present = read_text(file)
    except FileNotFoundError:
        return
    except CannotRead:
        present = ""
    if present != text and not force:
        raise SettingsError([f"{file}: exists and says something else; --force replaces it"])
