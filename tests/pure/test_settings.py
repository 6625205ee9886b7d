"""Four layers, one check: what is given where wins, and what is wrong is told in the operator's terms."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import pytest

from almagent.clouds import CLOUDS
from almagent.core.model import Secret
from almagent.errors import SettingsError
from almagent.settings_load import Loaded, load

CANARY = "canary-3f9a1c"
REQUIRED = f'stack_id = "mo-1"\nflag = "Web01"\napi.client_secret = "{CANARY}"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return _written(tmp_path / "agent.toml", REQUIRED)


def _written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def _load(
    file: Path, overrides: dict[str, str] | None = None, environ: dict[str, str] | None = None
) -> Loaded:
    return load(environ or {}, config=file, overrides=overrides)


def _problems(
    file: Path, overrides: dict[str, str] | None = None, environ: dict[str, str] | None = None
) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        _load(file, overrides, environ)
    assert CANARY not in str(caught.value)
    return list(caught.value.lines)


def test_defaults_are_those_of_the_contract(file: Path) -> None:
    settings, warnings, read, _ = _load(file)
    assert (settings.stack_id, settings.flag, settings.user_id) == ("mo-1", "Web01", "")
    assert (settings.state_dir, settings.runtime_dir) == (
        Path("/var/lib/almagent"),
        Path("/run/almagent"),
    )
    assert settings.api.url == "https://api.mobingi.com"
    assert settings.api.client_id == "mo-1"
    assert settings.api.client_secret == Secret(CANARY)
    assert (settings.api.poll_interval, settings.api.start_splay, settings.api.timeout) == (
        30,
        2,
        10,
    )
    assert asdict(settings.cloud) == {
        "provider": "auto",
        "endpoint": "",
        "poll_interval": 5,
        "on_rebalance": "report",
        "pre_shutdown": "/pre_shutdown.sh",
    }
    assert asdict(settings.docker) == {
        "host": "unix:///var/run/docker.sock",
        "log_driver": "json-file",
        "log_opts": {"max-size": "10m", "max-file": "3"},
        "min_free_bytes": 1073741824,
        "keep_images": 2,
    }
    assert asdict(settings.deploy) == {
        "strategy": "auto",
        "ready_timeout": 180,
        "drain_timeout": 30,
        "stop_timeout": 30,
        "bake_time": 30,
        "keep_releases": 5,
    }
    assert asdict(settings.git) == {"known_hosts_file": None, "timeout": 300}
    assert asdict(settings.log) == {"level": "info", "format": "auto"}
    assert settings.metrics.listen == ""
    assert (warnings, read) == ((), file)


def test_later_layers_win(file: Path) -> None:
    _written(file, REQUIRED + "[git]\ntimeout = 1\n[deploy]\nbake_time = 1\nready_timeout = 1\n")
    environ = {"ALMAGENT_DEPLOY__BAKE_TIME": "2", "ALMAGENT_DEPLOY__READY_TIMEOUT": "2"}
    settings = _load(file, {"deploy.ready_timeout": "3"}, environ).settings
    assert settings.git.timeout == 1
    assert settings.deploy.bake_time == 2
    assert settings.deploy.ready_timeout == 3


def test_the_environment_alone_is_enough() -> None:
    environ = {
        "ALMAGENT_STACK_ID": "mo-1",
        "ALMAGENT_FLAG": "007",
        "ALMAGENT_API__CLIENT_SECRET": CANARY,
        "ALMAGENT_DOCKER__LOG_OPTS": '{ max-size = "1m" }',
        "ALMAGENT_DOCKER__KEEP_IMAGES": "1_0",
    }
    settings = load(environ, config=Path("/dev/null")).settings
    assert settings.flag == "007"
    assert settings.docker.log_opts == {"max-size": "1m"}
    assert settings.docker.keep_images == 10


def test_the_file_is_named_by_the_environment(file: Path) -> None:
    assert load({"ALMAGENT_CONFIG": str(file)}).file == file


def test_docker_host_counts_where_nothing_else_says_it(file: Path) -> None:
    environ = {"DOCKER_HOST": "tcp://10.0.0.1:2375"}
    assert _load(file, environ=environ).settings.docker.host == "tcp://10.0.0.1:2375"
    assert (
        _load(file, environ={"DOCKER_HOST": ""}).settings.docker.host
        == "unix:///var/run/docker.sock"
    )
    _written(file, REQUIRED + '[docker]\nhost = "unix:///other.sock"\n')
    assert _load(file, environ=environ).settings.docker.host == "unix:///other.sock"


def test_log_options_are_dropped_with_the_driver_they_belong_to(file: Path) -> None:
    journald = _load(file, {"docker.log_driver": "journald"}).settings
    assert journald.docker.log_opts == {}
    given = {"docker.log_driver": "journald", "docker.log_opts": '{tag = "web"}'}
    assert _load(file, given).settings.docker.log_opts == {"tag": "web"}


# --- the original's file -------------------------------------------------------------------------

ORIGINAL = """
{
    "UserId": "5447820c870e1",
    "StackId": "mo-5447820c870e1-ZgNTSRM8K-tk",
    "APIHost": "%s",
    "AuthorizationToken": "canary-3f9a1c",
    "LogBucket": "some-bucket",
    "flag": "web01"
}
"""


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("https://apidev.example.com", "https://apidev.example.com"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("api.example.com", "https://api.example.com"),
        ("api.example.com:8443", "https://api.example.com:8443"),
        ("", "https://api.mobingi.com"),
    ],
)
def test_the_original_file_is_understood(tmp_path: Path, host: str, url: str) -> None:
    file = _written(tmp_path / "alm-agent.cfg", ORIGINAL % host)
    settings, warnings, *_ = _load(file)
    assert settings.user_id == "5447820c870e1"
    assert settings.stack_id == "mo-5447820c870e1-ZgNTSRM8K-tk"
    assert settings.flag == "web01"
    assert settings.api.url == url
    assert settings.api.client_id == settings.stack_id
    assert settings.api.client_secret == Secret(CANARY)
    assert warnings == (f"{file}: LogBucket: not used by this agent",)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            '{"StackId": "mo-1", "AuthorizationToken": "canary-3f9a1c"}',
            ["{file}: Flag: must be printable text of 1 to 255 characters"],
        ),
        (
            '{"StackId": "", "Flag": 3, "AuthorizationToken": "canary-3f9a1c"}',
            [
                "{file}: StackId: must be printable text of 1 to 255 characters",
                "{file}: Flag: must be printable text of 1 to 255 characters",
            ],
        ),
        (
            '{"StackId": "mo-1", "Flag": "a", "Password": "canary-3f9a1c", "Token": 1}',
            [
                "{file}: Password: unknown key; allowed here: UserId, StackId, APIHost, AuthorizationToken, Flag",
                "{file}: Token: unknown key; allowed here: UserId, ",
                "{file}: api.client_secret: missing",
            ],
        ),
        (
            '{"StackId": "mo-1", "Flag": "a", "AuthorizationToken": "canary-3f9a1c", "api": {}}',
            ["{file}: api: unknown key; allowed here: UserId, "],
        ),
        ('{\n"StackId": "mo-1",\n canary-3f9a1c}', ["{file}:3: not JSON: Expecting property name"]),
        ("{", ["{file}:1: not JSON: Expecting property name enclosed in double quotes"]),
    ],
)
def test_what_is_wrong_in_the_original_file_is_told_in_its_words(
    tmp_path: Path, text: str, lines: list[str]
) -> None:
    file = _written(tmp_path / "alm-agent.cfg", text)
    found = _problems(file)
    assert len(found) == len(lines)
    for line, start in zip(found, lines, strict=True):
        assert line.startswith(start.format(file=file))


# --- what is wrong -------------------------------------------------------------------------------

SECONDS = "must be a number of seconds, at least 0.1 and at most 86400"
URL = "must be an http or https URL without user name, query and fragment"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[api]\npoll_interval = 0", f"api.poll_interval: {SECONDS}"),
        ("[api]\npoll_interval = -1", f"api.poll_interval: {SECONDS}"),
        ('[api]\npoll_interval = "30"', f"api.poll_interval: {SECONDS}"),
        ("[api]\npoll_interval = true", f"api.poll_interval: {SECONDS}"),
        ("[api]\npoll_interval = nan", f"api.poll_interval: {SECONDS}"),
        ("[api]\npoll_interval = inf", f"api.poll_interval: {SECONDS}"),
        ('[api]\nurl = "api.example.com"', f"api.url: {URL}"),
        ('[api]\nurl = "https://u:canary-3f9a1c@h"', f"api.url: {URL}"),
        ('[api]\nurl = "https://h?token=canary-3f9a1c"', f"api.url: {URL}"),
        ('[api]\nurl = "http://h:99999"', f"api.url: {URL}"),
        ('[api]\nurl = "http://[::1"', f"api.url: {URL}"),
        ("[api]\nurl = 3", f"api.url: {URL}"),
        ('[api]\nca_file = "ca.pem"', 'api.ca_file: must be an absolute path, or "" for none'),
        ("[api]\nclient_secret = 12345", "api.client_secret: must be text"),
        ("user_id = 3", "user_id: must be text"),
        (
            "[docker]\nmin_free_bytes = true",
            "docker.min_free_bytes: must be a whole number of bytes, at least 0 and at most ",
        ),
        ("[deploy]\nstrategy = []", "deploy.strategy: must be one of auto, switch, recreate"),
        ("[docker]\nlog_opts = 'tag=web'", "docker.log_opts: must be a table of text values"),
        (
            '[cloud]\nprovider = "canary-3f9a1c"',
            f"cloud.provider: must be one of auto, {', '.join(CLOUDS)}, none",
        ),
        ('[deploy]\nstrategy = "Switch"', "deploy.strategy: must be one of auto, switch, recreate"),
        (
            "[docker]\nkeep_images = 1.5",
            "docker.keep_images: must be a whole number of images, at least 0 and at most 1000",
        ),
        ("[docker]\nlog_opts.max-file = 3", "docker.log_opts: must be a table of text values"),
        (
            '[docker]\nhost = "/var/run/docker.sock"',
            "docker.host: must be unix:///path/to/socket or tcp://host:port",
        ),
        ("[metrics]\nlisten = '9464'", 'metrics.listen: must be host:port, or "" for none'),
        ('[log]\nlevl = "info"', "log.levl: unknown key; allowed here: level, format"),
        ("[logs]\nlevel = 'info'", "logs: unknown key; allowed here: stack_id, flag, user_id,"),
        ("[[log]]\nlevel = 'info'", "log: must be a table"),
    ],
)
def test_what_is_wrong_in_the_file_is_told(
    file: Path, tmp_path: Path, text: str, line: str
) -> None:
    _written(file, REQUIRED.replace("api.client_secret", "#") + text)
    _written(tmp_path / "client_secret", CANARY)
    problems = _problems(file, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert [problem[: len(f"{file}: {line}")] for problem in problems] == [f"{file}: {line}"]


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    file = _written(tmp_path / "agent.toml", 'state_dir = "var"\n[git]\ntimeout = "long"\n')
    environ = {"ALMAGENT_API__TIMEOUT": "soon", "ALMAGENT_API_URL": "http://h"}
    allowed = "stack_id, flag, user_id, state_dir, runtime_dir, api, cloud, docker, deploy, git, log, metrics"
    assert _problems(file, {"log.level": "loud", "nothing.at.all": "1"}, environ) == [
        f"{file}: stack_id: missing; it must be printable text of 1 to 255 characters",
        f"{file}: flag: missing; it must be printable text of 1 to 255 characters",
        f"{file}: state_dir: must be an absolute path",
        "environment: ALMAGENT_API__TIMEOUT: must be a number of seconds, at least 0.1 and at most 600",
        f"{file}: git.timeout: must be a number of seconds, at least 1 and at most 86400",
        "command line: log.level: must be one of debug, info, warning, error",
        f"environment: ALMAGENT_API_URL: unknown key; allowed here: {allowed}",
        f"command line: nothing.at.all: unknown key; allowed here: {allowed}",
        f"{file}: api.client_secret: missing; it must be given as one of client_secret, client_secret_file or the systemd credential client_secret",
    ]


@pytest.mark.parametrize("path", ["3", '"own"', '"/a\\u0000b"'])
def test_a_secret_file_that_is_none_is_no_other_problem(file: Path, path: str) -> None:
    _written(file, f"{NO_SECRET}[api]\nclient_secret_file = {path}\n")
    assert f'{file}: api.client_secret_file: must be an absolute path, or "" for none' in _problems(
        file
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('flag = "a"\nstack_id = canary-3f9a1c\n', ":2: not TOML: Invalid value"),
        ('flag = "a"\nflag = "canary-3f9a1c"\n', ":2: not TOML: Cannot overwrite a value"),
        ('flag = "a"\n[api', ":2: not TOML: "),
        ("\ufefflag", ":1: not TOML: "),
    ],
)
def test_a_broken_file_is_told_with_its_line(file: Path, text: str, line: str) -> None:
    _written(file, text)
    (problem,) = _problems(file)
    assert problem.startswith(f"{file}{line}")


DEEP, LONG = "[" * 100_000, "9" * 5000


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"flag = {DEEP}", "it is nested too deeply"),
        (f'{{"Flag": {DEEP}', "it is nested too deeply"),
        (f"flag = {LONG}", "a number in it has too many digits"),
        (f'{{"Flag": {LONG}}}', "a number in it has too many digits"),
    ],
    ids=["deep TOML", "deep JSON", "long in TOML", "long in JSON"],
)
def test_a_file_beyond_all_bounds_is_told(file: Path, text: str, problem: str) -> None:
    _written(file, text)
    assert _problems(file) == [f"{file}: cannot use: {problem}"]


@pytest.mark.parametrize("value", [DEEP, LONG], ids=["deep", "long"])
def test_a_value_beyond_all_bounds_is_told(file: Path, value: str) -> None:
    (problem,) = _problems(file, {"docker.keep_images": value})
    assert problem.startswith("command line: docker.keep_images: must be a whole number")


def test_text_that_is_no_utf_8_is_no_text(file: Path) -> None:
    broken = os.fsdecode(b"mo-\xff")
    problems = _problems(file, environ={"ALMAGENT_STACK_ID": broken, "ALMAGENT_USER_ID": broken})
    assert problems == [
        "environment: ALMAGENT_STACK_ID: must be printable text of 1 to 255 characters",
        "environment: ALMAGENT_USER_ID: must be text",
    ]


def test_what_stands_above_or_below_a_key_is_told(file: Path) -> None:
    environ = {"ALMAGENT_STACK_ID__X": "1", "ALMAGENT_API": "x"}
    found = _problems(file, {"metrics.listen.port": "1"}, environ)
    assert [problem.partition("; ")[0] for problem in found] == [
        "environment: ALMAGENT_API: must be a table",
        "environment: ALMAGENT_STACK_ID__X: unknown key",
        "command line: metrics.listen.port: unknown key",
    ]


def test_only_what_ends_is_read(file: Path, tmp_path: Path) -> None:
    pipe, endless = tmp_path / "pipe", Path("/dev/zero")
    os.mkfifo(pipe)
    assert _problems(pipe) == [f"{pipe}: cannot read: a pipe, not a file"]
    assert _problems(endless) == [f"{endless}: cannot read: longer than 1048576 characters"]
    _written(file, NO_SECRET)
    place = "command line: api.client_secret_file"
    assert _problems(file, {"api.client_secret_file": str(pipe)}) == [
        f"{place}: cannot read {pipe}: a pipe, not a file"
    ]


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    assert _problems(tmp_path / "no.toml") == [f"{tmp_path}/no.toml: cannot read: no such file"]
    assert _problems(tmp_path) == [f"{tmp_path}: cannot read: Is a directory"]
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    assert _problems(binary) == [f"{binary}: cannot read: not UTF-8 text"]


# --- the secret ----------------------------------------------------------------------------------

NO_SECRET = 'stack_id = "mo-1"\nflag = "Web01"\n'


def test_the_secret_comes_from_the_first_place_that_has_it(file: Path, tmp_path: Path) -> None:
    own = _written(tmp_path / "own", "from-own-file\n")
    _written(tmp_path / "client_secret", "from-credential\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    named = {"api.client_secret_file": str(own)}

    def secret(overrides: dict[str, str]) -> str:
        return _load(file, overrides, environ).settings.api.client_secret.reveal()

    assert secret(named) == CANARY
    _written(file, NO_SECRET)
    assert secret(named) == "from-own-file"
    assert secret({}) == "from-credential"
    assert secret({"api.client_secret_file": ""}) == "from-credential"


def test_where_the_secret_comes_from_is_known(file: Path, tmp_path: Path) -> None:
    assert _load(file).secret_from == f"{file}: api.client_secret"
    given = {"ALMAGENT_API__CLIENT_SECRET": CANARY}
    assert _load(file, None, given).secret_from == "environment: ALMAGENT_API__CLIENT_SECRET"
    _written(file, NO_SECRET)
    own = _written(tmp_path / "own", CANARY)
    assert _load(file, {"api.client_secret_file": str(own)}).secret_from == str(own)


def test_a_secret_that_cannot_be_had_is_told(file: Path, tmp_path: Path) -> None:
    _written(file, NO_SECRET + '[api]\nclient_secret_file = ""\n')
    assert _problems(file) == [
        f"{file}: api.client_secret: missing; it must be given as one of client_secret, client_secret_file or the systemd credential client_secret"
    ]
    absent = {"api.client_secret_file": f"{tmp_path}/absent"}
    place = "command line: api.client_secret_file"
    assert _problems(file, absent) == [f"{place}: cannot read {tmp_path}/absent: no such file"]
    _written(tmp_path / "empty", "\n")
    empty = {"api.client_secret_file": f"{tmp_path}/empty"}
    assert _problems(file, empty) == [f"{place}: cannot use {tmp_path}/empty: it is empty"]


def test_settings_do_not_show_the_secret(file: Path) -> None:
    loaded = _load(file)
    assert CANARY not in repr(loaded)
    assert CANARY not in str(asdict(loaded.settings))


# --- warnings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_files_that_others_can_read_are_warned_about(file: Path, tmp_path: Path, mode: int) -> None:
    own = _written(tmp_path / "own", CANARY, mode)
    _written(file, NO_SECRET, mode)
    reason = f"others than its owner can read it (mode {mode:04o}); chmod 600 it"
    loaded = _load(file, {"api.client_secret_file": str(own)})
    assert loaded.warnings == (f"{file}: {reason}", f"{own}: {reason}")


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://api.example.com", True),
        ("http://10.0.0.1:8080", True),
        ("https://api.example.com", False),
        ("http://localhost:8080", False),
        ("http://127.0.0.2:8080", False),
        ("http://[::1]:8080", False),
    ],
)
def test_plain_http_to_another_host_is_warned_about(file: Path, url: str, warned: bool) -> None:
    warnings = _load(file, {"api.url": url}).warnings
    assert [line.startswith("command line: api.url: plain http to ") for line in warnings] == (
        [True] if warned else []
    )
