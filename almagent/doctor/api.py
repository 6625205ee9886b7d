"""The ALM API: whether it answers, takes our credentials, has a document for us, and agrees on the time."""

from __future__ import annotations

import shlex
from contextlib import suppress
from email.utils import parsedate_to_datetime

from almagent.core import wire
from almagent.core.document import DocumentError, read
from almagent.doctor.finding import Finding, Level, fail, ok, warn
from almagent.doctor.host import keep_time
from almagent.doctor.patient import Patient
from almagent.ports import PortError, Refused

SKEW_WARN = 30.0  # seconds; certificates and signatures tolerate it
SKEW_FAIL = 300.0  # seconds; common tokens are refused beyond
TOO_OFTEN = 429  # the HTTP status

UNKNOWN = warn("not known: the API does not answer as one", "see the line api")


async def reachable(patient: Patient) -> Finding:
    url, ca_file = patient.settings.api.url, patient.settings.api.ca_file
    look = f"curl -v {shlex.quote(f'{url}/v3/access_token')}"
    fix = f"correct api.url, or let this host reach it; to look: {look}"
    try:
        answer = await patient.login()
        if answer.status != TOO_OFTEN:
            with suppress(wire.LoginRejected):  # the line credentials tells
                wire.read_token(answer)
    except Refused as exc:  # before anything was asked
        if ca_file and str(ca_file) in str(exc):
            fix = f"put certificates in PEM form into {ca_file}; or correct api.ca_file"
            return fail(str(exc), fix)
        return fail(str(exc), "correct the proxy in the environment of almagent")
    except PortError as exc:
        return fail(str(exc), fix)
    except wire.WireError as exc:
        return fail(f"{url} does not answer as an ALM API: {exc}", fix)
    return ok(f"{url} answers")


async def credentials(patient: Patient) -> Finding:
    try:
        answer = await patient.login()
        if answer.status == TOO_OFTEN:
            text = f"not known: the API is asked too often (HTTP {TOO_OFTEN})"
            return warn(text, f"wait a minute; then: {patient.again}")
        wire.read_token(answer)
    except wire.LoginRejected as exc:
        fix = f"correct api.client_id or the client secret; then: {patient.after_change}"
        return fail(f"{exc}; it is the one from {patient.loaded.secret_from}", fix)
    except (PortError, wire.WireError):
        return UNKNOWN
    return ok(f"accepted for client {patient.settings.api.client_id}")


async def document(patient: Patient) -> Finding:
    login = await credentials(patient)
    if login.level is not Level.OK:
        return UNKNOWN if login is UNKNOWN else warn("not known", "see the line credentials")
    s = patient.settings
    role = f"flag {s.flag} of stack {s.stack_id}"
    try:
        spec = read(await patient.document())
    except DocumentError as exc:
        fix = f"correct it in the control plane; then: {patient.again}"
        return fail(f"cannot use the document for {role}: {exc}", fix)
    except wire.WireError as exc:
        fix = "correct stack_id, flag or api.client_id"
        if not exc.final:
            fix = f"wait a minute; then: {patient.again}; or tell those who run {s.api.url}"
        return fail(f"{exc} for {role}", fix)
    except PortError as exc:
        return fail(str(exc), f"let this host reach {s.api.url}; then: {patient.again}")
    if spec is None:
        fix = "define it in the control plane; or correct flag and stack_id"
        return warn(f"nothing is defined for {role}", fix)
    return ok(f"asks for {spec.image}")


async def clock(patient: Patient) -> Finding:
    try:
        answer = await patient.login()
    except PortError:
        return UNKNOWN
    try:
        theirs = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except ValueError:
        return warn("not known: the API does not tell the time", "timedatectl status")
    skew = answer.at - theirs
    text = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the API"
    if abs(skew) < SKEW_WARN:
        return ok(text)
    fix = keep_time(patient)
    return fail(text, fix) if abs(skew) >= SKEW_FAIL else warn(text, fix)
