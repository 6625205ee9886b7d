"""`almagent controlplane`: the self-hosted ALM API, in the foreground."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--listen",
        type=_address,
        default=("127.0.0.1", 8080),
        metavar="HOST:PORT",
        help="address to serve on, port 0 takes a free one (default 127.0.0.1:8080)",
    )
    parser.add_argument(
        "--state",
        default="controlplane.db",
        metavar="FILE",
        help="SQLite file, made if it is not there (default controlplane.db)",
    )


def run(args: argparse.Namespace) -> int:
    import asyncio  # noqa: PLC0415  the command line starts fast; only this command needs it
    from pathlib import Path  # noqa: PLC0415  likewise

    from almagent.controlplane.foreground import serve  # noqa: PLC0415  likewise

    host, port = args.listen
    return asyncio.run(serve(Path(args.state), host, port))


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host, int(port)
