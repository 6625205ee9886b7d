"""The ALM API: whether it answers, takes our credentials, and agrees on the time."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from almagent.core import wire
from almagent.doctor.finding import Finding, fail, ok, warn
from almagent.doctor.patient import Patient
from almagent.ports import PortError

SKEW_WARN = 30.0  # seconds; certificates and signatures tolerate it
SKEW_FAIL = 300.0  # seconds; common tokens are refused beyond


async def reachable(patient: Patient) -> Finding:
    url = patient.settings.api.url
    fix = f"correct api.url, or let this host reach it; to look: curl -v {url}/v3/access_token"
    try:
        answer = await patient.login()
    except PortError as exc:
        return fail(str(exc), fix)
    if answer.status == 404 or answer.status >= 500 or 300 <= answer.status < 400:
        return fail(f"{url} answers HTTP {answer.status}: not a working ALM API", fix)
    return ok(f"{url} answers")


async def credentials(patient: Patient) -> Finding:
    try:
        wire.read_token(await patient.login())
    except PortError:
        return warn("not known: the API does not answer", "see the line api")
    except wire.LoginRejected as exc:
        where = "api.client_id and the client secret"
        fix = f"put the values of this stack into {where}, then: systemctl reload almagent"
        return fail(str(exc), fix)
    except wire.WireError as exc:
        return warn(f"not known: {exc}", "see the line api")
    return ok(f"accepted for client {patient.settings.api.client_id}")


async def clock(patient: Patient) -> Finding:
    try:
        answer = await patient.login()
    except PortError:
        return warn("not known: the API does not answer", "see the line api")
    try:
        theirs = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except ValueError:
        return warn("not known: the API does not tell the time", "timedatectl status")
    skew = answer.at - theirs
    text = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the API"
    fix = "apt-get install systemd-timesyncd (or: dnf install chrony); timedatectl set-ntp true"
    if abs(skew) >= SKEW_FAIL:
        return fail(text, fix)
    return warn(text, fix) if abs(skew) >= SKEW_WARN else ok(text)
