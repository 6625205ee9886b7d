"""What the operator decides: defaults < file < environment < command line, checked once, then trusted.

The models below are the list of keys; a field's `description` ends the sentence "must be ..." in the
error lines. Importing this module imports pydantic: a command does so when it runs, not to be listed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator
from pydantic.fields import FieldInfo

from almagent import places
from almagent.clouds import CLOUDS
from almagent.core.model import Secret

PROVIDERS = ("auto", *CLOUDS, "none")


def _name(text: str) -> str:
    if not text.strip() or len(text) > 255 or not text.isprintable():
        raise ValueError
    return text


def _secret(value: object) -> Secret:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004  pydantic collects a ValueError, a TypeError would escape
    return Secret(value)


def _absolute(value: object) -> object:
    """A Path for text that is an absolute path; anything else is left for pydantic to refuse."""
    if isinstance(value, str) and value.startswith("/") and "\0" not in value:
        return Path(value)
    return value


def absolute_or_none(value: object) -> object:
    return None if value == "" else _absolute(value)


def _http_url(text: str) -> str:
    url = urlsplit(text)
    plain = not (url.username or url.password or url.query or url.fragment)
    if url.scheme not in {"http", "https"} or not url.hostname or not plain or url.port == 0:
        raise ValueError
    return text.rstrip("/")


def _http_url_or_empty(text: str) -> str:
    return text and _http_url(text)


def _engine_address(text: str) -> str:
    url = urlsplit(text)
    if url.scheme == "unix" and url.path.startswith("/") and not url.netloc:
        return text
    if url.scheme in {"tcp", "http", "https"} and url.hostname and url.port:
        return text
    raise ValueError


def _provider(text: str) -> str:
    if text not in PROVIDERS:
        raise ValueError
    return text


def _listen_address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if text and not (host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError
    return text


def _seconds(default: float, *, low: float = 0, high: float = 86400) -> Any:
    allowed = f"a number of seconds, at least {low:g} and at most {high:g}"
    return Field(default=default, ge=low, le=high, description=allowed)


def _count(default: int, *, low: int, high: int, unit: str) -> Any:
    allowed = f"a whole number of {unit}, at least {low} and at most {high}"
    return Field(default=default, ge=low, le=high, description=allowed)


Name = Annotated[
    str, AfterValidator(_name), Field(description="printable text of 1 to 255 characters")
]
Text = Annotated[str, Field(description="text")]
SecretText = Annotated[Secret, PlainValidator(_secret), Field(description="text")]
AbsolutePath = Annotated[Path, BeforeValidator(_absolute), Field(description="an absolute path")]
OptionalPath = Annotated[
    Path | None,
    BeforeValidator(absolute_or_none),
    Field(description='an absolute path, or "" for none'),
]
HttpUrl = Annotated[
    str,
    AfterValidator(_http_url),
    Field(description="an http or https URL without user name, query and fragment"),
]
OptionalHttpUrl = Annotated[
    str,
    AfterValidator(_http_url_or_empty),
    Field(description='an http or https URL without user name, query and fragment, or "" for none'),
]
EngineAddress = Annotated[
    str,
    AfterValidator(_engine_address),
    Field(description="unix:///path/to/socket or tcp://host:port"),
]
Provider = Annotated[
    str, AfterValidator(_provider), Field(description=f"one of {', '.join(PROVIDERS)}")
]
ListenAddress = Annotated[
    str, AfterValidator(_listen_address), Field(description='host:port, or "" for none')
]


class Group(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # what was given may be a secret
    )


class Api(Group):
    url: HttpUrl = "https://api.mobingi.com"  # the paths below it start with /v3
    client_id: Name = ""  # once loaded never empty: the stack id by default
    client_secret: SecretText = Secret("")
    client_secret_file: OptionalPath = Path(places.SECRET_FILE)
    ca_file: OptionalPath = None  # trusted besides the system's
    poll_interval: float = _seconds(30, low=0.1)
    start_splay: float = _seconds(2)
    timeout: float = _seconds(10, low=0.1, high=600)  # for one whole call


class Cloud(Group):
    provider: Provider = "auto"
    endpoint: OptionalHttpUrl = ""  # metadata base URL; empty: the cloud's own
    poll_interval: float = _seconds(5, low=0.1, high=3600)
    on_rebalance: Literal["report", "drain"] = "report"
    pre_shutdown: Text = "/pre_shutdown.sh"  # in the container; empty: none


class Docker(Group):
    host: EngineAddress = "unix:///var/run/docker.sock"
    log_driver: Name = "json-file"
    log_opts: dict[str, str] = Field(
        default={"max-size": "10m", "max-file": "3"}, description="a table of text values"
    )
    min_free_bytes: int = _count(2**30, low=0, high=2**60, unit="bytes")
    keep_images: int = _count(2, low=0, high=1000, unit="images")


class Deploy(Group):
    strategy: Literal["auto", "switch", "recreate"] = "auto"
    ready_timeout: float = _seconds(180, low=0.1)
    drain_timeout: float = _seconds(30)
    stop_timeout: float = _seconds(30)
    bake_time: float = _seconds(30)
    keep_releases: int = _count(5, low=1, high=1000, unit="releases")


class Git(Group):
    known_hosts_file: OptionalPath = None  # None: accept new keys, remember them in state_dir
    timeout: float = _seconds(300, low=1)


class Log(Group):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class Metrics(Group):
    listen: ListenAddress = ""


class Settings(Group):
    stack_id: Name
    flag: Name
    user_id: Text = ""
    state_dir: AbsolutePath = Path(places.STATE_DIR)
    runtime_dir: AbsolutePath = Path(places.RUNTIME_DIR)
    api: Api = Api()
    cloud: Cloud = Cloud()
    docker: Docker = Docker()
    deploy: Deploy = Deploy()
    git: Git = Git()
    log: Log = Log()
    metrics: Metrics = Metrics()


def group_of(name: str) -> type[Group] | None:
    """The table of that name."""
    field = Settings.model_fields.get(name)
    kind = field.annotation if field else None
    return kind if isinstance(kind, type) and issubclass(kind, Group) else None


def field_of(key: tuple[str, ...]) -> FieldInfo | None:
    """The field of ("flag",) or ("api", "url")."""
    if len(key) == 1:
        return Settings.model_fields.get(key[0])
    group = group_of(key[0])
    return group.model_fields.get(key[1]) if group else None
