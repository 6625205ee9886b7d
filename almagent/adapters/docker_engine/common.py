"""What all containers of one agent have in common."""

from collections.abc import Mapping
from pathlib import Path

from almagent.adapters.docker_engine.labels import Owner
from almagent.core.frozen import frozen


@frozen
class Common:
    owner: Owner
    user_id: str  # their MO_USER_ID
    logs: Path  # directory of their log directories
    log_driver: str
    log_opts: Mapping[str, str]
