"""`almagent plan`: what `run` would do now and why, changing nothing."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from almagent.commands import given, text
from almagent.commands.options import add_settings_arguments, load_settings
from almagent.errors import SettingsError
from almagent.lean import be_brief

if TYPE_CHECKING:
    from almagent.core.explanation import Explanation
    from almagent.redaction import Redactor
    from almagent.settings import Settings

CHANGES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_settings_arguments(parser)
    parser.add_argument(
        "--document",
        metavar="FILE",
        help="take the document from FILE (- for stdin) instead of asking the API",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    redactor = be_brief()

    import asyncio  # noqa: PLC0415  the command line starts fast; only this command needs it

    from almagent.core.document import DocumentError  # noqa: PLC0415  likewise
    from almagent.ports import PortError  # noqa: PLC0415  likewise

    document = given.read(args.document) if args.document else None
    settings = load_settings(args).settings
    redactor.learn(settings.api.client_secret)
    try:
        explanation = asyncio.run(_look(settings, document, redactor))
    except DocumentError as exc:
        raise SettingsError([f"cannot use the document: {exc}"]) from exc
    except PortError as exc:
        print(redactor.scrub(str(exc)), file=sys.stderr)
        return 1
    print(_json(explanation) if args.json else describe(explanation))
    return CHANGES if explanation.pending else 0


async def _look(settings: Settings, document: bytes | None, redactor: Redactor) -> Explanation:
    from almagent.preview import ask_document, preview  # noqa: PLC0415  loads all adapters

    if document is None:
        document = await ask_document(settings)
    return await preview(settings, document, redactor)


def _json(explanation: Explanation) -> str:
    import json  # noqa: PLC0415  the text needs none
    from dataclasses import asdict  # noqa: PLC0415  likewise

    return json.dumps(asdict(explanation))


def describe(explanation: Explanation) -> str:
    lines = [text.hanging("", text.clean(explanation.why), 0)]
    rows = [(f"  {c.field}", f"{c.was or '-'} -> {c.will_be or '-'}") for c in explanation.changes]
    if explanation.desired != explanation.active:
        rows += [("  variables", _variables(explanation))]
    if rows and explanation.commit:
        rows += [("  commit", f"{explanation.commit} runs now")]
    if rows:
        lines += ["", text.table(rows)]
    if explanation.steps:
        lines += ["", "what run would do now"]
        lines += [
            text.hanging(f"  {number}. ", text.clean(step.text), 5)
            for number, step in enumerate(explanation.steps, 1)
        ]
    elif explanation.pending and explanation.wait is not None:
        lines += ["", f"nothing to do for another {explanation.wait:.0f} s"]
    return "\n".join(lines)


def _variables(explanation: Explanation) -> str:
    names = explanation.variables
    if not names.known:
        return "what the active container was given is not remembered"
    signed = [
        *(f"+{name}" for name in names.added),
        *(f"~{name}" for name in names.changed),
        *(f"-{name}" for name in names.removed),
    ]
    return " ".join(signed) or "unchanged"
