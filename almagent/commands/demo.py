"""`almagent demo`: the whole loop on this machine."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keep",
        action="store_true",
        help="leave it running before the end, and tell how to look around; Ctrl-C goes on",
    )


def run(args: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415  the command line starts fast; only this command needs it

    from almagent.demo.performance import perform  # noqa: PLC0415  likewise

    return asyncio.run(perform(keep=args.keep))
