"""Everything the agent needs, looked at without changing any of it: one check a line of the table.

A new check is a coroutine `Patient -> Finding` and a line in `CHECKS`. Its id is a promise.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from almagent.core.frozen import frozen
from almagent.doctor import api, engine, host, others
from almagent.doctor.finding import Finding, Level, fail, ok, warn
from almagent.doctor.patient import Patient
from almagent.errors import SettingsError
from almagent.settings import Settings
from almagent.settings_file import DEFAULT_FILES
from almagent.settings_load import Loaded, mode_warnings

DEADLINE = 8.0  # seconds for each check; all run at the same time

Check = Callable[[Patient], Awaitable[Finding]]

CHECKS: dict[str, Check] = {
    "permissions": host.permissions,
    "api": api.reachable,
    "credentials": api.credentials,
    "document": api.document,
    "clock": api.clock,
    "docker": engine.docker,
    "disk": engine.disk,
    "ports": engine.ports,
    "git": host.git,
    "ssh": host.ssh,
    "ssh-keygen": host.ssh_keygen,
    "nftables": host.nftables,
    "metadata": host.metadata,
    "second-agent": others.second_agent,
    "old-agent": others.original,
}
NEED_SETTINGS = frozenset(
    {"api", "credentials", "document", "clock", "ports", "metadata", "second-agent"}
)


@frozen
class Result:
    id: str
    finding: Finding


async def examine(
    read_settings: Callable[[], Loaded], config: Path | None, root: Path = Path("/")
) -> list[Result]:
    """`read_settings` raises SettingsError; what does not depend on settings is looked at all the same.

    `config`: the settings file that was named, if one was.
    """
    option = f" --config {shlex.quote(str(config))}" if config else ""
    this = _as_called()
    again = f"{this} doctor{option}"
    try:
        loaded, first = _judge(read_settings())
    except SettingsError as exc:
        loaded = None
        anew = (
            f"write them anew: {this} register --force --url URL --stack-id ID --flag FLAG{option}"
        )
        first = fail("; ".join(exc.lines), f"correct the settings; or {anew}; then: {again}")
    patient = Patient(loaded or _defaults(config), again=again, known=loaded is not None, root=root)
    checks = {name: check for name, check in CHECKS.items() if loaded or name not in NEED_SETTINGS}
    try:
        findings = await asyncio.gather(*(_ask(check, patient) for check in checks.values()))
    finally:
        await patient.close()
    results = dict(zip(checks, findings, strict=True))
    unknown = warn("not known without settings", "see the line settings")
    rest = [Result(name, results.get(name, unknown)) for name in CHECKS]
    everything = [Result("settings", first), *rest]
    if os.geteuid() == 0:
        return everything
    return [_for_another_user(result, f"sudo {again}") for result in everything]


def _as_called() -> str:
    """The command that root and sudo find; a Python environment is not in their PATH."""
    if shutil.which("almagent", path=host.SYSTEM_PATH):
        return "almagent"
    script = Path(sys.argv[0]).absolute()
    if script.name == "almagent":
        return shlex.quote(str(script))
    return f"{shlex.quote(sys.executable)} -m almagent"


def _for_another_user(result: Result, as_root: str) -> Result:
    """What fails for them may be right for root, whose service the agent is."""
    found = result.finding
    if found.level is not Level.FAIL or found.fix == as_root:
        return result
    return Result(result.id, fail(found.text, f"{as_root}; if this fails there, too: {found.fix}"))


def _judge(loaded: Loaded) -> tuple[Loaded, Finding]:
    """Modes have a line of their own."""
    doubts = [w for w in loaded.warnings if "chmod" not in w]
    if doubts:
        return loaded, warn("; ".join(doubts), f"correct it in {loaded.file or 'the environment'}")
    return loaded, ok(f"from {loaded.file or 'the environment'}")


def _defaults(config: Path | None) -> Loaded:
    """For the checks that need settings only a little; the file may be open to others all the same."""
    nothing = Loaded(Settings(stack_id="unknown", flag="unknown"), (), None)
    with suppress(OSError):  # the file is not ours to look at
        file = next(filter(Path.is_file, [config] if config else DEFAULT_FILES), None)
        return nothing._replace(file=file, warnings=tuple(mode_warnings(file)))
    return nothing


async def _ask(check: Check, patient: Patient) -> Finding:
    try:
        async with asyncio.timeout(DEADLINE):
            return await check(patient)
    except TimeoutError:
        text = f"cannot be checked: no answer within {DEADLINE:g} s"
        return fail(text, f"see what hangs: ps -ef --forest; then: {patient.again}")
    except Exception as exc:  # noqa: BLE001  one check that fails on this host must not hide the others
        text = f"cannot be checked: {type(exc).__name__}"
        return warn(text, "report this as a fault of almagent")


def healthy(results: list[Result]) -> bool:
    return all(result.finding.level is not Level.FAIL for result in results)
