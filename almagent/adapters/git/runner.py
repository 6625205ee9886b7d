"""Runs git and its helpers as children that end with their caller, with their deadline and with the agent.

GitPython cannot do this: it ignores `kill_after_timeout` for clones and cannot be cancelled.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import field
from pathlib import Path

from almagent.core.frozen import frozen

MAX_ERROR_LINES = 50  # of the child's stderr, the last ones; each cut to MAX_LINE
MAX_LINE = 500  # characters
MAX_OUTPUT = 64 << 20  # bytes; a listing of 100,000 files has about 10 MB
NOT_INSTALLED = 127  # the shell's exit code for a program that is not there

# The child's standard input is a pipe whose other end only the agent holds. When the agent is gone,
# however it went, `read` returns and the whole process group is killed: git, ssh, index-pack, remote-https.
# PR_SET_PDEATHSIG would reach only the first of them.
# Writing beyond `ulimit -f` is to fail with a message (EFBIG), not to kill without one (SIGXFSZ).
_GUARD = """
trap '' XFSZ; ulimit -f "$1" || :; input=$2; shift 2
exec 3<&0
(read -r _ <&3; kill -KILL 0) >/dev/null 2>&1 &
exec "$@" 3<&- <"$input"
"""

# Nothing that a repository, a document or the host brings is run, asked for or followed.
_CONFIG = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.bigFileThreshold=32m",  # larger blobs are streamed, never held in memory
    "gc.auto=0",  # no background process of git's own; the mirror is tidied by the agent
    "maintenance.auto=false",
    "fetch.unpackLimit=1",  # one pack a fetch, so that packs tell when to tidy
    "fetch.recurseSubmodules=false",
    "submodule.recurse=false",
    "transfer.bundleURI=false",
    "credential.helper=",
    "tar.umask=0022",
)
ENVIRONMENT = {
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "false",
    "GIT_ALLOW_PROTOCOL": "https:ssh",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "SSH_ASKPASS_REQUIRE": "never",
}
_PASSED_ON = ("PATH", "GIT_SSL_CAINFO", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY")
_PROGRESS = re.compile(r"(?:remote: )?([A-Z][a-z]+ [a-z]+): +\d+% \((\d+)/(\d+)\)")

Progress = Callable[[str, int, int], None]


@frozen
class Finished:
    returncode: int  # negative: killed by that signal
    output: bytes
    errors: tuple[str, ...]

    @property
    def text(self) -> str:
        return self.output.decode(errors="replace").strip()


@frozen
class Git:
    """git with everything shut; `config` and `environment` open what one repository needs."""

    directory: Path  # where the children run, and what relative names in `config` are relative to
    largest_file: int  # bytes; no child can write a larger one
    config: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, git_dir: Path | None, *args: str) -> list[str]:
        options = [part for setting in (*_CONFIG, *self.config) for part in ("-c", setting)]
        where = [f"--git-dir={git_dir}"] if git_dir else []
        return ["git", *options, *where, *args]

    async def run(
        self, git_dir: Path | None, *args: str, progress: Progress | None = None
    ) -> Finished:
        return await run(self, self.command(git_dir, *args), progress=progress)


def _environment(git: Git) -> dict[str, str]:
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**passed_on, **ENVIRONMENT, **git.environment}


async def run(
    git: Git, argv: Sequence[str], *, progress: Progress | None = None, stdin: int | None = None
) -> Finished:
    """Run to the end. Ending the awaiting task ends the child and all its descendants."""
    async with child(git, argv, stdin=stdin) as process:
        output, errors = await asyncio.gather(
            _read_output(process), _read_errors(process, progress)
        )
        return Finished(await process.wait(), output, errors)


@asynccontextmanager
async def child(
    git: Git,
    argv: Sequence[str],
    *,
    stdin: int | None = None,
    stdout: int = PIPE,
    stderr: int = PIPE,
) -> AsyncIterator[Process]:
    """A child in a process group of its own, which has ended when the block is left.

    It reads what `stdin` is open for, from the beginning, or nothing.
    """
    blocks = str(git.largest_file // 512)  # what POSIX counts in for `ulimit -f`
    source = "/dev/null" if stdin is None else f"/dev/fd/{stdin}"
    theirs, ours = os.pipe()
    try:
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", _GUARD, "guard", blocks, source, *argv),
                stdin=theirs,
                stdout=stdout,
                stderr=stderr,
                env=_environment(git),
                cwd=git.directory,
                pass_fds=() if stdin is None else (stdin,),
                start_new_session=True,
                umask=0o022,
            )
        )
        try:
            # asyncio's own way to undo a start waits for pipes that descendants of the child still hold
            yield await asyncio.shield(starting)
        finally:
            os.close(theirs)
            process = await starting
            end(process)
            await process.communicate()
    finally:
        os.close(ours)


def end(process: Process) -> None:
    """Kill the whole group. The guard, which outlives git, keeps its number from being used again."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _read_output(process: Process) -> bytes:
    output = bytearray()
    while process.stdout and (chunk := await process.stdout.read(1 << 16)):
        output += chunk
        if len(output) > MAX_OUTPUT:
            end(process)
            break
    return bytes(output)


async def _read_errors(process: Process, progress: Progress | None) -> tuple[str, ...]:
    lines: deque[str] = deque(maxlen=MAX_ERROR_LINES)
    rest = ""
    while process.stderr and (chunk := await process.stderr.read(1 << 12)):
        *whole, rest = re.split(r"[\r\n]+", rest + chunk.decode(errors="replace"))
        rest = rest[-MAX_LINE:]
        for line in whole:
            if found := _PROGRESS.match(line):
                if progress is not None:
                    progress(found[1].lower(), int(found[2]), int(found[3]))
            elif line:
                lines.append(line[:MAX_LINE])
    return (*lines, rest) if rest else tuple(lines)
