"""What the engine and containers write, made fit for one line of an error or a bounded excerpt."""

import re

MAX_LINE = 300  # characters of a foreign reason in an error
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)?", re.DOTALL)


def one_line(text: str, limit: int = MAX_LINE) -> str:
    """Printable, without line ends, at most `limit` characters."""
    flat = " ".join(_ESCAPE.sub("", text).split())
    return "".join(c if c.isprintable() else "?" for c in flat)[:limit]


def last_lines(data: bytes, limit: int) -> str:
    """The end of what a program wrote: whole lines of printable text, at most `limit` characters.

    The rest of a line that was cut could be that of a secret, which nobody would know for one.
    """
    text = _ESCAPE.sub("", data.decode("utf-8", "replace")).replace("\r\n", "\n")
    kept = "".join(c for c in text if c.isprintable() or c in "\n\t").strip("\n")
    return kept if len(kept) <= limit else kept[-limit:].partition("\n")[2]
