"""What the control plane remembers, on one SQLite file.

Calls are short and synchronous: every request is served whole before the next one reads or writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from almagent.controlplane.store.accounts import Accounts
from almagent.controlplane.store.database import CannotOpen, connect
from almagent.controlplane.store.roles import Roles
from almagent.controlplane.store.stacks import Stacks
from almagent.controlplane.store.statuses import Statuses
from almagent.controlplane.store.tokens import Tokens

__all__ = ["CannotOpen", "Store"]


class Store:
    """`login_file` beside the state file holds the master account's login request, 0600."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        """Raises CannotOpen. `now`: seconds since the epoch."""
        self.path = path
        self.login_file = path.with_name(f"{path.name}.login.json")
        self._db = connect(path)
        try:
            self.accounts = Accounts(self._db, now, self.login_file)
        except OSError as exc:
            self._db.close()
            raise CannotOpen(f"cannot write {self.login_file}: {exc.strerror}") from exc
        self.tokens = Tokens(self._db, now, self.accounts.find)
        self.stacks = Stacks(self._db, now, self.accounts.user_id)
        self.statuses = Statuses(self._db, now)
        self.roles = Roles(self._db, now, self.accounts.user_id)

    def close(self) -> None:
        self._db.close()
