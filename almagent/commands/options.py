"""The options of every command that reads the settings."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from almagent import original
from almagent.errors import SettingsError
from almagent.places import SETTINGS_FILE

if TYPE_CHECKING:
    from almagent.settings_load import Loaded

FLAGS = {
    "state_dir": ("--state-dir", "DIR", "what must survive a restart"),
    "runtime_dir": ("--runtime-dir", "DIR", "lock and socket"),
    "log.level": ("--log-level", "LEVEL", "debug, info, warning or error"),
    "log.format": ("--log-format", "FORMAT", "auto, console or json"),
}
SECRET_KEY = "api.client_secret"  # noqa: S105  a name

READ = f"settings file (default: $ALMAGENT_CONFIG, {SETTINGS_FILE}, {original.SETTINGS})"


def add_settings_arguments(parser: argparse.ArgumentParser, config_help: str = READ) -> None:
    group = parser.add_argument_group("settings", "these win over the environment and the file")
    group.add_argument("--config", type=Path, metavar="FILE", help=config_help)
    for key, (flag, metavar, text) in FLAGS.items():
        group.add_argument(flag, dest=key, metavar=metavar, help=text)
    group.add_argument(
        "--set",
        dest="assignments",
        type=_assignment,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other setting, such as deploy.ready_timeout=60; may be repeated",
    )


def load_settings(args: argparse.Namespace) -> Loaded:
    """The settings as they are now. Raises SettingsError."""
    from almagent.settings_load import load  # noqa: PLC0415  --help does without it

    given = {key: getattr(args, key) for key in FLAGS}
    overrides = {key: value for key, value in given.items() if value is not None}
    return load(os.environ, config=args.config, overrides=overrides | dict(args.assignments))


def _assignment(text: str) -> tuple[str, str]:
    """What is wrong with it is told without it: it may be a secret."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError("must be KEY=VALUE")
    if key == SECRET_KEY:
        place = "other users of this host can read the command line"
        raise SettingsError([f"command line: {SECRET_KEY}: not taken from here: {place}"])
    return key, value
