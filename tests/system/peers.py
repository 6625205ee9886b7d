"""What an agent works with, inside a machine: registry, git server, control plane, image, load."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.peers.images import root_file_system
from tests.system.machine import PATIENCE, Machine

PORT = 8000
PAGE = f"http://127.0.0.1:{PORT}/"
API = "http://127.0.0.1:8080"
IMAGE = "127.0.0.1:5000/app:1"
REPOSITORY = "ssh://root@127.0.0.1/srv/site.git"
REGISTRY_USER, REGISTRY_PASSWORD = "alice", "registry password"
REGISTRY_LOGINS = "alice:$2b$04$oYTIjcFfNlGr1o0EYDjZg.NpLOSVx0cgX2HUmyLdRH5s0bGgYKh/.\n"  # bcrypt

# Serves the site. Its logs are as an app leaves them that does not run as root: the agent has to read
# the one and to remove the other.
APP = f"""#!/bin/sh
mkdir /var/log/app && echo line >/var/log/app/access.log
chown -R 33:33 /var/log/app && chmod 700 /var/log/app
echo complete >/var/log/container_status
chown 33 /var/log/container_status && chmod 600 /var/log/container_status
exec httpd -f -p {PORT} -h /var/www/html
"""

# What a test needs to be otherwise, where the settings are to stay as users have them.
OTHERWISE = f"""
[Service]
Environment=ALMAGENT_API__URL={API} ALMAGENT_CLOUD__PROVIDER=none ALMAGENT_DOCKER__MIN_FREE_BYTES=1
Environment=ALMAGENT_DEPLOY__DRAIN_TIMEOUT=3 ALMAGENT_DEPLOY__STOP_TIMEOUT=2
"""

# The same program, but from files that an upgrade of the package leaves alone.
CONTROL_PLANE = """
[Service]
WorkingDirectory=/srv
ExecStart=/srv/peer/usr/lib/almagent/bin/python3 -I -m almagent controlplane --state api.db
[Install]
WantedBy=multi-user.target
"""

OURS = """
find / -xdev \\( -path /proc -o -path /sys -o -path /srv -o -path /var/lib/docker \\) -prune \
    -o -name '*almagent*' -print
"""

SITE = """
ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys
git init -q --bare -b main /srv/site.git
git clone -q /srv/site.git /srv/site 2>/dev/null
cd /srv/site
echo "site 1" >index.html
git add . && git -c user.name=A -c user.email=a@example.com commit -qm 1 && git push -q origin HEAD:main
"""


def furnish(machine: Machine, package: Path) -> None:
    """Registry with the image, git server with the site, and the control plane from the package's files."""
    _open_registry(machine)
    archive = root_file_system({"/bin/app": APP})
    changes = ("--change", 'CMD ["/bin/app"]', "--change", f"EXPOSE {PORT}")
    machine.run("docker", "import", *changes, "-", IMAGE, stdin=archive)
    machine.run("docker", "push", "--quiet", IMAGE)
    machine.run("docker", "image", "rm", IMAGE)
    machine.shell(SITE)
    machine.copy_in(package, "/srv/almagent.deb")
    machine.shell("dpkg-deb --extract /srv/almagent.deb /srv/peer")
    machine.write("/etc/systemd/system/controlplane.service", CONTROL_PLANE)
    machine.run("systemctl", "enable", "--quiet", "--now", "controlplane")
    machine.until(lambda: machine.attempt("curl", "-s", API).returncode == 0, "control plane")


def _open_registry(machine: Machine) -> None:
    """The login ends up in root's Docker configuration, where the agent has to find it."""
    registry = IMAGE.partition("/")[0]
    machine.write("/etc/docker/registry/logins", REGISTRY_LOGINS)
    machine.shell(
        "sed -i 's#path: .*#path: /etc/docker/registry/logins#' /etc/docker/registry/config.yml\n"
        "systemctl restart docker-registry"
    )
    url = f"http://{registry}/v2/"
    machine.until(lambda: machine.attempt("curl", "-s", url).returncode == 0, "registry")
    login = ("docker", "login", "--username", REGISTRY_USER, "--password-stdin", registry)
    machine.run(*login, stdin=REGISTRY_PASSWORD)


@dataclass
class Site:
    """A stack of the machine's control plane with one layer, whose container serves PAGE."""

    machine: Machine
    token: str
    container: dict[str, Any]
    stack_id: str = ""
    secret: str = ""

    def apply(self, **changes: Any) -> None:
        self.container = {**self.container, **changes}
        template = {"configurations": [{"flag": "Web01", "container": self.container}]}
        if self.stack_id:
            self.call(f"alm/template/{self.stack_id}", "-X", "PUT", body=template)
            return
        self.stack_id = self.call("alm/template", body=template)["stack_id"]
        self.secret = self.call(f"alm/stack/{self.stack_id}")["auth_token"]

    def call(self, path: str, *options: str, body: dict[str, Any] | None = None) -> Any:
        data = ("--data", "@-") if body is not None else ()
        answer = self.machine.run(
            *("curl", "--silent", "--show-error", "--fail-with-body", f"{API}/v3/{path}", *options),
            *("-H", f"Authorization: Bearer {self.token}", "-H", "Content-Type: application/json"),
            *data,
            stdin=json.dumps(body),
        )
        return json.loads(answer)

    def page(self, url: str = PAGE) -> str:
        return self.machine.attempt("curl", "--silent", "--max-time", "5", url).stdout.strip()

    def containers(self) -> list[str]:
        """Full ids of the stack's containers, running or not."""
        label = f"label=almagent.stack={self.stack_id}"
        listed = self.machine.run("docker", "ps", "-aq", "--no-trunc", "--filter", label)
        return listed.split()

    def words(self) -> list[str]:
        """What the agent has said, the oldest first."""
        return [row["status"] for row in self.call(f"alm/stack/{self.stack_id}/status")]


def new_site(machine: Machine) -> Site:
    login = machine.run("cat", "/srv/api.db.login.json")
    answer = machine.run(
        *("curl", "-s", f"{API}/v3/access_token", "-H", "Content-Type: application/json"),
        *("--data", login),
    )
    key = machine.run("cat", "/root/.ssh/id_ed25519")
    container = {
        "image": IMAGE,
        "environment_variables": {"PAGE": "one"},
        "gitRepo": REPOSITORY,
        "gitReference": "main",
        "gitPrivateKey": key,
    }
    site = Site(machine, json.loads(answer)["access_token"], container)
    site.apply()
    return site


def settings(site: Site, **groups: dict[str, Any]) -> str:
    """Short times: the tests wait for them."""
    tables: dict[str, dict[str, Any]] = {
        "api": {"url": API, "poll_interval": 1, "start_splay": 0},
        "cloud": {"provider": "none"},
        "docker": {"min_free_bytes": 1},
        "deploy": {"drain_timeout": 3, "stop_timeout": 2, "bake_time": 2},
    }
    lines = [f'stack_id = "{site.stack_id}"', 'flag = "Web01"']
    for name in {**tables, **groups}:
        values = {**tables.get(name, {}), **groups.get(name, {})}
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def settle(site: Site) -> None:
    """Settings and secret, as an administrator writes them."""
    site.machine.write("/etc/almagent/agent.toml", settings(site), 0o600)
    site.machine.write("/etc/almagent/client_secret", site.secret, 0o600)


def install(site: Site) -> None:
    """As an administrator does: settings, package, start. It serves when this returns."""
    settle(site)
    machine = site.machine
    machine.run("apt-get", "install", "--yes", "--quiet", "/srv/almagent.deb")
    machine.until(lambda: site.page() == "site 1", "the site")


def left(machine: Machine) -> list[str]:
    """The paths that tell of the agent."""
    return machine.shell(OURS).splitlines()


@dataclass
class Outcome:
    good: int = 0
    failed: tuple[str, ...] = ()


@contextmanager
def load(machine: Machine, url: str = PAGE) -> Iterator[Outcome]:
    """Requests all the time while the block lasts; what is yielded is filled in at its end."""
    machine.copy_in(Path(__file__).with_name("load.py"), "/srv/load.py")
    command = ["docker", "exec", "--interactive", machine.container, "python3", "/srv/load.py", url]
    outcome = Outcome()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as clients:
        try:
            yield outcome
        finally:
            told = json.loads(clients.communicate(timeout=PATIENCE)[0])
    outcome.good, outcome.failed = told["good"], tuple(told["failed"])
