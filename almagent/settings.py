"""What the operator decides: defaults < file < environment < command line, checked once, then trusted.

The classes below are the list of keys, and say of each what it can be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from almagent import places
from almagent.core.frozen import frozen
from almagent.core.model import Secret
from almagent.settings_kinds import (
    AbsolutePath,
    EngineAddress,
    HttpUrl,
    Kind,
    ListenAddress,
    Name,
    OptionalHttpUrl,
    OptionalPath,
    Provider,
    SecretText,
    Text,
    Texts,
    count,
    one_of,
    seconds,
)

Key = tuple[str, ...]  # ("flag",) or ("api", "url")


@frozen
class Api:
    url: HttpUrl = "https://api.mobingi.com"  # the paths below it start with /v3
    client_id: Name = ""  # once loaded never empty: the stack id by default
    client_secret: SecretText = Secret("")
    client_secret_file: OptionalPath = Path(places.SECRET_FILE)
    ca_file: OptionalPath = None  # trusted besides the system's
    poll_interval: Annotated[float, seconds(low=0.1)] = 30
    start_splay: Annotated[float, seconds()] = 2
    timeout: Annotated[float, seconds(low=0.1, high=600)] = 10  # for one whole call


@frozen
class Cloud:
    provider: Provider = "auto"
    endpoint: OptionalHttpUrl = ""  # metadata base URL; empty: the cloud's own
    poll_interval: Annotated[float, seconds(low=0.1, high=3600)] = 5
    on_rebalance: Literal["report", "drain"] = "report"
    pre_shutdown: Text = "/pre_shutdown.sh"  # in the container; empty: none


@frozen
class Docker:
    host: EngineAddress = "unix:///var/run/docker.sock"
    log_driver: Name = "json-file"
    log_opts: Texts = field(default_factory=lambda: {"max-size": "10m", "max-file": "3"})
    min_free_bytes: Annotated[int, count("bytes", low=0, high=2**60)] = 2**30
    keep_images: Annotated[int, count("images", low=0, high=1000)] = 2


@frozen
class Deploy:
    strategy: Literal["auto", "switch", "recreate"] = "auto"
    ready_timeout: Annotated[float, seconds(low=0.1)] = 180
    drain_timeout: Annotated[float, seconds()] = 30
    stop_timeout: Annotated[float, seconds()] = 30
    bake_time: Annotated[float, seconds()] = 30
    keep_releases: Annotated[int, count("releases", low=1, high=1000)] = 5


@frozen
class Git:
    known_hosts_file: OptionalPath = None  # None: accept new keys, remember them in state_dir
    timeout: Annotated[float, seconds(low=1)] = 300


@frozen
class Log:
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


@frozen
class Metrics:
    listen: ListenAddress = ""


@frozen
class Settings:
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


_TABLES: Mapping[str, Any] = {
    name: kind for name, kind in get_type_hints(Settings).items() if is_dataclass(kind)
}
REQUIRED = tuple((f.name,) for f in fields(Settings) if f.default is MISSING)


def _kinds() -> Iterator[tuple[Key, Kind]]:
    for name, hint in get_type_hints(Settings, include_extras=True).items():
        if name not in _TABLES:
            yield (name,), _kind(hint)
            continue
        yield (name,), Kind("a table", _refuse)
        for inner, within in get_type_hints(_TABLES[name], include_extras=True).items():
            yield (name, inner), _kind(within)


def _kind(hint: Any) -> Kind:
    if get_origin(hint) is Literal:
        return one_of(*get_args(hint))
    kind: Kind = hint.__metadata__[0]
    return kind


def _refuse(_given: object) -> object:
    """The keys of a table arrive one by one: what arrives under its own name is none."""
    raise ValueError


KINDS: Mapping[Key, Kind] = dict(_kinds())


def is_table(name: str) -> bool:
    return name in _TABLES


def names_beside(key: Key) -> list[str]:
    """What can stand where the last part of `key` does; for a table that there is not, the tables."""
    return [known[-1] for known in KINDS if known[:-1] == key[:-1]] or names_beside(key[:1])


def assemble(values: Mapping[Key, Any]) -> Settings:
    """`values` have been checked, and none that is REQUIRED is missing."""

    def within(*table: str) -> dict[str, Any]:
        return {key[-1]: value for key, value in values.items() if key[:-1] == table}

    tables = {name: kind(**within(name)) for name, kind in _TABLES.items()}
    return Settings(**within(), **tables)
