"""Break the core on purpose, one line at a time: each time a test must turn red.

`python tests/mutants.py` works on copies and prints a table; exit 1 if a mutant lives or no longer applies.
Arguments are the tests to run instead of all of the core's, to see what one of them is worth.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
AT_ONCE = 2
TIMEOUT = 120.0  # seconds for one run; a mutant that hangs the tests is dead as well
TESTS = [
    "tests/pure/test_memory.py",
    "tests/pure/test_planner_states.py",
    "tests/pure/test_planner.py",
    "tests/pure/test_planner_serving.py",
    "tests/pure/test_planner_ending.py",
    "tests/pure/test_reports.py",
    "tests/pure/test_document.py",
    "tests/pure/test_plain.py",
    "tests/pure/test_planner_machine.py",
]


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str  # of almagent/core
    old: str  # must be there exactly once
    new: str


MUTANTS = [
    # a candidate
    Mutant("no ready deadline", "planner.py", "elif self.now >= late:", "elif False:"),
    Mutant("readiness ignored", "planner.py", "if is_ready(candidate) or", "if True or"),
    Mutant(
        "health check ignored",
        "judging.py",
        "return candidate.health is Health.HEALTHY",
        "return True",
    ),
    Mutant(
        "status file ignored",
        "judging.py",
        'return candidate.status_word == "complete"',
        "return True",
    ),
    Mutant("ports ignored", "judging.py", "return candidate.listening is True", "return True"),
    Mutant("ready at once", "judging.py", "candidate.up_for >= SETTLED_AFTER", "True"),
    Mutant(
        "switch to any revision",
        "cast.py",
        "if c.revision == spec.revision\n",
        "if c.revision\n",
    ),
    Mutant("any revision is right", "cast.py", "active.revision == spec.revision and", ""),
    Mutant(
        "late candidate not removed",
        "planner.py",
        "self.plan.then(do.Discard(candidate, reason))",
        "self.plan.then(do.Reject(candidate.revision, reason))",
    ),
    Mutant("busy port ignored", "planner.py", "if port in self.seen.busy_ports:", "if False:"),
    Mutant(
        "old preparation used",
        "scene.py",
        "if self.seen.preparation is not None:",
        "if False:",
    ),
    Mutant(
        "any preparation used",
        "planner.py",
        "case Prepared(release=release) if release.revision == spec.revision:",
        "case Prepared(release=release):",
    ),
    Mutant(
        "recreate makes no way",
        "planner.py",
        "if self.switching or self._make_way():",
        "if True:",
    ),
    Mutant(
        "recreate does not stand aside",
        "planner.py",
        "if candidate is not None and not self.switching:",
        "if False:",
    ),
    # failures
    Mutant("replacement that fails is made again at once", "memory.py", "if memory.release is not None and memory.release.revision == revision:", "if False:"),
    Mutant("backoff constant", "memory.py", "pause(count, RETRY_PAUSE", "pause(1, RETRY_PAUSE"),
    Mutant("no backoff", "planner.py", "elif not self._is_backing_off(spec):", "else:"),
    Mutant("peer's wait ignored", "memory.py", "now + max(wait, ", "now + max(0.0, "),
    Mutant("failure outlives a success", "memory.py", "stops=stops,\n        failure=None,\n", "stops=stops,\n"),
    # bake
    Mutant("no bake", "judging.py", "if now >= memory.switched_at + bake_time:", "if now:"),
    Mutant("death while away passes", "judging.py", "unseen = ended and not active.restarts", "unseen = False"),
    Mutant("death after the bake fails it", "judging.py", "memory.up_at_switch < bake_time", "memory.up_at_switch < 1e9"),
    Mutant("bake for ever", "planner.py", "switched + self.policy.bake_time", "switched + 1e9"),
    Mutant("unhealthy bake passes", "judging.py", "if active.health is Health.UNHEALTHY:", "if False:"),
    Mutant("restarted bake passes", "judging.py", "if ended or again else", "if ended else"),
    Mutant(
        "previous not kept",
        "planner.py",
        "elif c is self.cast.previous and self.now < self._baked_at:",
        "elif False:",
    ),
    Mutant(
        "switched back is tried again",
        "memory.py",
        "action.reason + detail, None)",
        "action.reason + detail, now)",
    ),
    Mutant(
        "switched back is a candidate again",
        "memory.py",
        "bad.id: Stop(now, action.drain_until)",
        "",
    ),
    Mutant("switched back is judged after a reboot", "cast.py", " and not _is_held(spec, memory)", ""),
    Mutant("making way fails the bake", "memory.py", "None if container_id == memory.active else", ""),
    # what serves
    Mutant("routes not mended", "planner.py", "self.plan.then(do.Route(wanted))", "pass"),
    Mutant("old ports stay open", "planner.py", "self.seen.routes != wanted:", "any(self.seen.routes.get(p) != t for p, t in wanted.items()):"),
    Mutant("routes hide published ports", "planner.py", "if self.switching or not active.published else {}", ""),
    Mutant("no restart policy", "planner.py", "self.plan.then(do.KeepRestarting(active))", "pass"),
    Mutant("restart policy in the bake", "planner.py", "elif not active.restarts and not self._baking:", "elif not active.restarts:"),
    Mutant("unhealthy serves on", "planner.py", "if active.health is Health.UNHEALTHY or is_ending", "if is_ending"),
    Mutant("start backoff constant", "memory.py", "pause(count, START_PAUSE", "pause(1, START_PAUSE"),
    Mutant("no start backoff", "planner.py", "starts.in_vain(active) and self.now < starts.next_at", "False"),
    Mutant("adoption off", "planner.py", "if self.memory.active or not self.seen.containers:", "if True:"),
    Mutant("adopts the newest", "planner.py", "[c for c in up if c.address in routed] or [c for c in up if c.restarts]", "up"),
    Mutant("lost one is not replaced", "cast.py", "return parts.active is None and release", "return False and release"),
    Mutant("lost one waits for another", "cast.py", "return desired if present or spec is None else Run(spec)", "return desired"),
    Mutant("release of the active one mixed up", "memory.py", "next((r for r in known if r and r.revision == container.revision), None)", "memory.candidate_release or memory.release"),
    # the way out
    Mutant("drain skipped", "ending.py", "elif not drain or (", "elif True or ("),
    Mutant("drain without end", "ending.py", "if scene.now >= until:\n        return True", "if False:\n        return True"),
    Mutant("no least drain", "ending.py", "if idle and scene.now >= at_least:", "if idle:"),
    Mutant("connections not counted", "ending.py", "idle = c.connections == 0 or", "idle = c.connections is None or"),
    Mutant("kill without grace", "ending.py", "kill_at = term_at + scene.policy.stop_timeout", "kill_at = term_at"),
    Mutant("never kills", "ending.py", "scene.plan.then(do.Kill(c))", "scene.look_again()"),
    Mutant("strays stay", "planner.py", "                self.plan.then(do.Remove(c))\n\n    def _blocks", "                pass\n\n    def _blocks"),
    Mutant("what leaves is a candidate", "cast.py", "            and c.id not in memory.stops\n", ""),
    Mutant("leaving ignores the deadline", "ending.py", "return since + left - min(policy.stop_timeout, left / 2)", "return since + policy.drain_timeout"),
    Mutant("leaving kills too late", "ending.py", "kill_at = max(term_at, min(kill_at, scene.desired.done_by))", "pass"),
    Mutant("leaving leaves the ports open", "ending.py", "scene.plan.then(do.Route({}))", "pass"),
    Mutant("hook each time", "memory.py", "return replace(memory, hook_done=True)", "return memory"),
    Mutant("hook once for ever", "memory.py", "stops=stops, hook_done=False)", "stops=stops)"),
    Mutant(
        "an old drain counts",
        "memory.py",
        "off = retired is not None and retired.term_at is None",
        "off = False",
    ),
    Mutant(
        "a stop signal forgotten",
        "memory.py",
        "off = retired is not None and retired.term_at is None",
        "off = True",
    ),
    Mutant("retired one is ended", "ending.py", "return stop is not None and stop.term_at is not None and started_at <= stop.term_at", "return stop is not None"),
    Mutant("ended for an earlier life", "ending.py", " and started_at <= stop.term_at", ""),
    # reports
    Mutant("uptodate too early", "reports.py", "if is_right(active, spec, policy):", "if active is not None:"),
    Mutant("failure not told", "reports.py", "    if failure is not None:\n", "    if False:\n"),
    Mutant("restart not told", "reports.py", "if active.incarnation != memory.incarnation:", "if False:"),
    Mutant("update told as first start", "reports.py", "ContainerWord.UPDATING if memory.active else", ""),
    Mutant("end not told when leaving", "reports.py", " and not isinstance(desired, Leave)", ""),
    Mutant("making way told as restart", "reports.py", " and not _stands_aside(desired, parts, memory)", ""),
    Mutant("keeps ending for ever", "reports.py", "count >= KEEPS_ENDING and starts.in_vain(active)", "count >= KEEPS_ENDING"),
    # documents
    Mutant("environment not in the revision", "document.py", "sorted((name, value.reveal()) for name, value in spec.environment.items())", "[]"),
    Mutant("login in the revision", "document.py", '"updated": spec.updated,\n    }', '"updated": spec.updated,\n        "login": spec.registry and spec.registry.username,\n    }'),
    Mutant("reference not checked", "document.py", "_text_that(check_reference)", "_text"),
    Mutant("image not checked", "document.py", "_text_that(parse_image)", "_text"),
    Mutant("NUL in a variable", "document.py", 'if "\\0" in text:', "if False:"),
    Mutant("bad name shown", "document.py", 'begins = good[0][:40] if good else ""', "begins = name"),
    Mutant("code may be mounted anywhere", "document.py", "if any(path == taken or", "if any(False and path == taken or"),
    Mutant("empty value hides another name", "document.py", 'not in (None, "")', "is not ..."),
    # what is kept on disk
    Mutant("any number is read back", "plain.py", "abs(raw) < LONGEST", "True"),
    Mutant("a field that is missing", "plain.py", "    if missing:\n", "    if False:\n"),
]  # fmt: skip


def main(tests: list[str]) -> int:
    print(f"{len(MUTANTS)} mutants")
    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as folder,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        verdicts = pool.map(lambda m: _judge(m, Path(folder) / m.name, tests), MUTANTS)
        bad = 0
        for mutant, (alive, text, seconds) in zip(MUTANTS, verdicts, strict=True):
            bad += alive
            print(f"{'ALIVE' if alive else 'dead '}  {seconds:5.1f} s  {mutant.name:36} {text}")
            sys.stdout.flush()
    print(f"{bad} alive" if bad else "all dead")
    return 1 if bad else 0


def _judge(mutant: Mutant, folder: Path, tests: list[str]) -> tuple[bool, str, float]:
    begun = time.monotonic()
    source = (ROOT / "almagent/core" / mutant.file).read_text()
    if source.count(mutant.old) != 1:
        return True, f"applies {source.count(mutant.old)} times in {mutant.file}", 0.0
    _copy(folder)
    (folder / "almagent/core" / mutant.file).write_text(source.replace(mutant.old, mutant.new))
    alive, text = _run(folder, tests)
    shutil.rmtree(folder)
    return alive, text, time.monotonic() - begun


def _copy(folder: Path) -> None:
    """The core and its tests; the fixtures of the other tiers want peers."""
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "almagent", folder / "almagent", ignore=skip)
    shutil.copytree(ROOT / "tests/pure", folder / "tests/pure", ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", folder)


def _run(folder: Path, tests: list[str]) -> tuple[bool, str]:
    """Whether it lives, and what killed it."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "--tb=no",
        "-p",
        "no:cacheprovider",
        *tests,
    ]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "ALMAGENT_UNSHRUNK": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, "the tests hang"
    if done.returncode == 0:
        return True, "no test noticed"
    found = re.search(r"^(?:FAILED|ERROR) \S*?([^/\s]+\.py\S*)", done.stdout, re.MULTILINE)
    if found is None:
        return True, f"the tests did not run: {(done.stdout + done.stderr)[-200:]!r}"
    return found[1].startswith("ERROR"), found[1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or TESTS))
