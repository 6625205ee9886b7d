"""The real program from outside: what it prints, where, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from almagent import __version__
from almagent.cli import COMMANDS
from almagent.lean import TOLD

ALMAGENT = [sys.executable, "-m", "almagent"]
CANARY = "canary-3f9a1c"


def _almagent(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*ALMAGENT, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)


def _shell(words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The shell closes and redirects what subprocess cannot."""
    return subprocess.run(
        ["bash", "-c", f'"$PYTHON" -m almagent {words}'],
        env={**os.environ, "PYTHON": sys.executable, **environ},
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_version() -> None:
    done = _almagent("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"almagent {__version__}\n", "")


def test_version_imports_nothing_that_takes_time() -> None:
    program = [sys.executable, "-X", "importtime", "-m", "almagent", "--version"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=30, check=True)
    imported = set(re.findall(r"\| +(\w+)", done.stderr))
    assert "almagent" in imported
    heavy = {"aiohttp", "asyncio", "docker", "git", "logging", "pydantic", "ssl", "structlog"}
    assert imported & heavy == set()


def test_the_docker_library_is_loaded_without_what_it_does_not_need() -> None:
    code = "import almagent.adapters.docker_engine.client, sys; print('docker', *sys.modules)"
    program = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(program, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.startswith("docker")
    assert not re.search(r"\bcharset_normalizer\b", done.stdout)


@pytest.mark.parametrize("command", ["plan", "doctor"])
def test_a_command_that_looks_loads_no_large_library(tmp_path: Path, command: str) -> None:
    settings = tmp_path / "agent.toml"
    settings.write_text(
        'stack_id = "s"\nflag = "f"\nuser_id = "u"\n'
        '[api]\nurl = "http://127.0.0.1:9"\nclient_id = "c"\nclient_secret = "canary"\n'
        '[cloud]\nprovider = "aws"\nendpoint = "http://127.0.0.1:9"\n'
        f'[docker]\nhost = "unix://{tmp_path}/docker.sock"\n'
    )
    program = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "almagent",
        command,
        "--config",
        str(settings),
    ]
    done = subprocess.run(program, capture_output=True, text=True, timeout=30, check=False)
    imported = set(re.findall(r"\| +(\w+)", done.stderr))
    assert {"almagent", "asyncio"} <= imported
    assert imported & {"aiohttp", "docker", "git", "pydantic", "requests", "structlog"} == set()


LOOKS = """
import sys
from almagent.lean import be_brief
be_brief().learn("canary-3f9a1c")
import logging
from almagent import preview
from almagent.reconciler import log
from almagent.settings_load import load
print("structlog" in sys.modules, "pydantic" in sys.modules)
logging.getLogger("urllib3").warning("a library speaks of canary-3f9a1c")
log.warning("some.event", what="quiet")
log.error("some.event", what="it broke at canary-3f9a1c")
print("structlog" in sys.modules)
"""


def test_a_command_that_looks_shows_errors_only_and_loads_a_log_for_them() -> None:
    program = [sys.executable, "-c", LOOKS]
    done = subprocess.run(program, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == ["False", "False", "True"]
    assert re.fullmatch(r".*error +.*some\.event +what='it broke at \*\*\*'\n", done.stderr)


STARTS_LEAN = """
import os
from almagent.lean import TOLD, start_lean
start_lean()
print(os.getpid(), *(os.environ[name] for name in sorted(TOLD)))
"""


def test_the_daemon_starts_lean_and_remains_the_same_process() -> None:
    environ = {**os.environ, "MALLOC_ARENA_MAX": "3"}
    environ.pop("FROZENLIST_NO_EXTENSIONS", None)
    program = [sys.executable, "-c", STARTS_LEAN]
    with subprocess.Popen(program, env=environ, stdout=subprocess.PIPE, text=True) as child:
        told, _ = child.communicate(timeout=30)
    values = TOLD | {"MALLOC_ARENA_MAX": "3"}
    assert told.split() == [str(child.pid), *(values[name] for name in sorted(values))]


def test_without_a_command_it_says_which_there_are() -> None:
    done = _almagent()
    assert (done.returncode, done.stdout) == (2, "")
    assert all(re.search(rf"^ +{command}\b", done.stderr, re.MULTILINE) for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = _almagent(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: almagent {command} ")
    assert "\nexit code: 0" in done.stdout


COMPLETE = """
almagent() { "$PYTHON" -m almagent "$@"; }
. packaging/root/usr/share/bash-completion/completions/almagent
COMP_WORDS=(almagent "$@") COMP_CWORD=$#
_almagent
echo "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["c"], ["controlplane"]),
        ([""], list(COMMANDS)),
        (["plan", "--d"], ["--document"]),
    ],
    ids=["one command", "all commands", "an option"],
)
def test_the_shell_completes(words: list[str], offered: list[str]) -> None:
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", *words],
        env={**os.environ, "PYTHON": sys.executable},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.split() == offered


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["run", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["run", "--set", "api.url"], "argument --set: must be KEY=VALUE"),
    ],
)
def test_misuse_is_told_in_one_line(arguments: list[str], problem: str) -> None:
    done = _almagent(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--client-secret", CANARY], "unrecognized arguments: --client-secret (values are"),
        ([f"--client-secret={CANARY}", CANARY], "unrecognized arguments: --client-secret (values"),
        ([f"-{CANARY}"], "unrecognized arguments: (values are not shown)"),
    ],
    ids=["two words", "one word", "short"],
)
def test_what_no_command_knows_is_told_by_the_names_of_its_options(
    command: str, arguments: list[str], problem: str
) -> None:
    done = _almagent(command, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr
    assert CANARY not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--client-secret", CANARY, "register"],
        ["run", "--set", CANARY],
        ["plan", f"--json={CANARY}"],
    ],
)
def test_what_is_misused_is_told_without_its_value(arguments: list[str]) -> None:
    done = _almagent(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert CANARY not in done.stderr


@pytest.mark.parametrize("command", ["run", "plan", "status", "doctor", "register", "stop"])
def test_the_secret_is_not_taken_from_the_command_line(command: str) -> None:
    done = _almagent(command, "--set", f"api.client_secret={CANARY}")
    assert (done.returncode, done.stdout) == (2, "")
    place = "other users of this host can read the command line"
    assert done.stderr == f"command line: api.client_secret: not taken from here: {place}\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", ["--version", "plan --help", "doctor"])
@pytest.mark.parametrize(
    ("redirection", "reason"),
    [(">&-", "Bad file descriptor"), ("> /dev/full", "No space left on device")],
)
def test_output_that_cannot_be_written_is_told(
    arguments: str, redirection: str, reason: str, unbuffered: str
) -> None:
    done = _shell(f"{arguments} {redirection}", PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (1, f"cannot write to stdout: {reason}\n")


def test_more_output_than_fits_any_buffer_fails_in_one_line() -> None:
    text = "from almagent import streams; streams.mend(); print('x' * 100_000)"
    program = [sys.executable, "-c", text]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(program, check=False, stdout=full, stderr=subprocess.PIPE, timeout=30)
    last = done.stderr.decode().splitlines()[-1]
    assert last.endswith("CannotWrite: cannot write to stdout: No space left on device")


@pytest.mark.parametrize("arguments", ["plan --document -", "register --stack-id s --flag f"])
def test_input_that_is_closed_is_told(arguments: str) -> None:
    done = _shell(f"{arguments} <&-")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "stdin: cannot read: Bad file descriptor\n"


def test_a_command_without_any_stream_ends_with_its_code() -> None:
    assert _shell("run --set flag= <&- >&- 2>&-").returncode == 2


def test_a_key_in_the_settings_cannot_move_the_cursor(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('"two\\nlines \\u001b[2J" = 1\n')
    done = _almagent("plan", "--config", str(file))
    assert f"{file}: two lines  [2J: unknown key; allowed here: " in done.stderr
    assert "\x1b" not in done.stderr


def test_settings_that_cannot_be_used_are_told_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('flag = "web"\nstack = "x"\n')
    done = _almagent("run", "--config", str(file), "--log-level", "loud", "--set", "git.timeout=0")
    assert (done.returncode, done.stdout) == (2, "")
    assert [": ".join(line.split(": ")[:2]) for line in sorted(done.stderr.splitlines())] == [
        f"{file}: api.client_secret",
        f"{file}: stack",
        f"{file}: stack_id",
        "command line: git.timeout",
        "command line: log.level",
    ]


def test_a_reader_that_leaves_is_no_reason_to_complain() -> None:
    with subprocess.Popen(
        [*ALMAGENT, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=30) in {0, 1}  # whether or not what it said was buffered


@pytest.mark.timeout(20)
def test_an_interrupt_ends_it_quietly(tmp_path: Path) -> None:
    document = tmp_path / "document.json"
    os.mkfifo(document)
    with subprocess.Popen(
        [*ALMAGENT, "plan", "--document", str(document)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        with document.open("w"):  # from here on it waits for the other end to write
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=30) == ("", "")
        assert process.returncode == 130
