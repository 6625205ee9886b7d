"""What git's and ssh's words mean: whether to try again later, and one clear line without a secret."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

from almagent.ports import PortError, Refused, Unavailable

MAX_TEXT = 300  # characters of a foreign message that are passed on

_USERINFO = re.compile(r"://[^/\s@]*@")
_NOT_LET_IN = "authentication refused"
_NOT_THERE = "no such repository, or no access to it"
_NOT_TRUSTED = "the server's certificate is not trusted"
_CUT = "the connection was cut"
# Words of git 2.25 to 2.50, curl and OpenSSH with LC_ALL=C; the first that matches counts.
_VERDICTS: tuple[tuple[str, type[PortError], str], ...] = (
    (r"Authentication failed|could not read (Username|Password)", Refused, _NOT_LET_IN),
    (r"Permission denied|Too many authentication failures", Refused, _NOT_LET_IN),
    (r"returned error: 40[13]", Refused, _NOT_LET_IN),
    (r"returned error: 4(04|10)|does not appear to be a git repository", Refused, _NOT_THERE),
    (r"[Rr]epository ('.*' )?not found|could not be found", Refused, _NOT_THERE),
    (r"certificate (verification|problem|subject)", Refused, _NOT_TRUSTED),
    (r"SSL certificate|SSL: no alternative", Refused, _NOT_TRUSTED),
    (r"Protocol .*(not supported|disabled)", Refused, "redirected to something else than https"),
    (r"mismatched algorithms", Refused, "it uses SHA-256 object names"),
    (r"Could not resolve host|Name or service not known", Unavailable, "unknown host"),
    (r"Temporary failure in name resolution", Unavailable, "no answer from the name servers"),
    (r"Connection refused", Unavailable, "connection refused"),
    (r"timed out|Timeout|too slow|not responding", Unavailable, "no answer in time"),
    (r"returned error: 429", Unavailable, "too many requests"),
    (r"returned error: 5\d\d", Unavailable, "the server failed"),
    (r"Failed to connect|unreachable|No route to host", Unavailable, "no connection"),
    (r"Connection (reset|closed)|early EOF|hung up|disconnect", Unavailable, _CUT),
    (r"RPC failed|Empty reply|Broken pipe", Unavailable, _CUT),
)
_DAMAGED = re.compile(
    r"is corrupt|is empty|bad object|not a git repository|bad config|inflate|unable to read|"
    r"invalid (object|sha1|index-pack)|does not point to a valid|missing (blob|tree|commit|necessary)|"
    r"did not send all necessary|Could not read|bad (signature|tree|pack)|cannot lock ref|"
    r"unable to (open|create|resolve)|file too short|is (far )?too (short|small)|not a valid|unresolved"
)


class Damaged(Exception):
    """The mirror itself is broken; making it anew may help. The text is git's, scrubbed."""


class Missing(Exception):
    """The remote has no such reference, or it cannot be deployed; then the text says why."""


def fetch_failure(url: str, errors: Sequence[str], secrets: Sequence[str]) -> Exception:
    """Damaged, Missing, Refused or Unavailable for what a failed fetch said."""
    text = "\n".join(errors)
    if re.search(r"couldn't find remote ref|not our ref|no such remote ref", text):
        return Missing()
    for pattern, kind, meaning in _VERDICTS:
        if re.search(pattern, text):
            return kind(f"cannot fetch {url}: {meaning}")
    said = last_words(errors, secrets)
    if _DAMAGED.search(text):
        return Damaged(said)
    return Unavailable(f"cannot fetch {url}: {said}")


def last_words(errors: Sequence[str], secrets: Sequence[str]) -> str:
    """The line that says most, without credentials and control characters, bounded."""
    said = [line for line in errors if line.startswith(("fatal:", "error:"))] or list(errors)
    return scrub(said[-1] if said else "git gave no reason", secrets)


def scrub(text: str, secrets: Sequence[str]) -> str:
    text = _USERINFO.sub("://", text)
    for secret in secrets:
        for form in {secret, quote(secret), quote(secret, safe="")}:
            text = text.replace(form, "***") if form else text
    return "".join(sign if sign.isprintable() else " " for sign in text)[:MAX_TEXT]
