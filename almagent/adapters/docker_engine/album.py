"""Which images this agent pulled: a small record, since an image cannot be labelled after the fact.

Only those are ever collected. An image that was here before the pull belongs to somebody else. Losing
the record costs disk space, never an image.
"""

from __future__ import annotations

import threading
from collections.abc import Collection

from almagent.ports import Store

MAX_PENDING = 5  # pulls that were given up and may still have brought something


class Album:
    """Safe to use from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._loaded = False
        self._images: list[str] = []  # ids, the latest pulled last
        self._pending: dict[str, list[str]] = {}  # reference -> the ids here before its pull

    def begin(self, reference: str, present: Collection[str], now_id: str | None) -> None:
        """A pull of `reference` begins; `now_id` is what it stands for on this host so far.

        What a pull that was cut short by a crash brought nevertheless is taken in first.
        """
        with self._lock:
            self._load()
            before = self._pending.pop(reference, None)
            if before is not None and now_id is not None and now_id not in before:
                self._add(now_id)
            recent = list(self._pending.items())[1 - MAX_PENDING :]
            self._pending = dict(recent) | {reference: sorted(present)}
            self._save()

    def end(self, reference: str, image_id: str) -> None:
        """The pull brought `image_id`."""
        with self._lock:
            self._load()
            before = self._pending.pop(reference, [])
            if image_id in self._images or image_id not in before:
                self._add(image_id)
            self._save()

    def old(self, keep: Collection[str], spare: int) -> list[str]:
        """Ours that are not in `keep`, without the `spare` latest of them."""
        with self._lock:
            self._load()
            return [image_id for image_id in reversed(self._images) if image_id not in keep][spare:]

    def forget(self, image_id: str) -> None:
        with self._lock:
            self._load()
            self._images = [known for known in self._images if known != image_id]
            self._save()

    def _add(self, image_id: str) -> None:
        self._images = [known for known in self._images if known != image_id] + [image_id]

    def _load(self) -> None:
        """At the first use: before that nobody needs the disk."""
        if self._loaded:
            return
        content = self._store.load()
        images, pending = content.get("images"), content.get("pending")
        self._images = [str(image_id) for image_id in images] if isinstance(images, list) else []
        self._pending = dict(pending) if isinstance(pending, dict) else {}
        self._loaded = True

    def _save(self) -> None:
        self._store.save({"images": self._images, "pending": self._pending})
