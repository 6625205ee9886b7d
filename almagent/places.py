"""Where things are on a host, unless the operator says otherwise."""

from __future__ import annotations

SETTINGS_FILE = "/etc/almagent/agent.toml"
SECRET_FILE = "/etc/almagent/client_secret"  # noqa: S105  where it is, not what it is
STATE_DIR = "/var/lib/almagent"
RUNTIME_DIR = "/run/almagent"
