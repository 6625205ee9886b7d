"""Makes a spec ready to run, beside everything else: image and code at the same time, cancellable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from almagent.core.document import check_directory
from almagent.core.model import Preparation, Prepared, PrepareFailed, Preparing, Release, Spec
from almagent.journal import logger
from almagent.ports import Checkout, Engine, Image, PortError, Progress, Source, no_progress

CODE_DIR_LABEL = "com.mobingi.code_dir"
CODE_DIR = "/var/www/html"  # the original agent's default

log = logger()


class Preparer:
    """Holds at most one preparation. `state` is what the planner sees; `changed` is called when it moves."""

    def __init__(
        self,
        engine: Engine,
        source: Source,
        changed: Callable[[], None],
        progress: Progress = no_progress,
    ) -> None:
        self._engine = engine
        self._source = source
        self._changed = changed
        self._progress = progress
        self._task: asyncio.Task[None] | None = None
        self.state: Preparation | None = None

    async def start(self, spec: Spec) -> None:
        """Replaces a preparation under way; nothing of the older one lands later."""
        await self.cancel()
        self.state = Preparing(spec.revision)
        self._task = asyncio.create_task(self._run(spec), name=f"prepare {spec.revision[:8]}")

    async def cancel(self) -> None:
        task, self._task, self.state = self._task, None, None
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])

    async def _run(self, spec: Spec) -> None:
        try:
            self.state = Prepared(await self._prepare(spec))
            log.info("release.prepared", revision=spec.revision[:8])
        except PortError as exc:
            self.state = PrepareFailed(spec.revision, str(exc), exc.retry_after or 0.0)
            log.warning("release.not_prepared", revision=spec.revision[:8], reason=str(exc))
        except Exception:
            # A bug must not look like a preparation that never ends.
            self.state = PrepareFailed(spec.revision, "cannot prepare the release: internal error")
            log.exception("release.not_prepared", revision=spec.revision[:8])
        self._changed()

    async def _prepare(self, spec: Spec) -> Release:
        pull = asyncio.create_task(self._engine.pull(spec.image, spec.registry, self._progress))
        fetch = asyncio.create_task(self._fetch(spec))
        try:
            image, checkout = await asyncio.gather(pull, fetch)
        finally:
            for task in (pull, fetch):
                task.cancel()
            await asyncio.wait([pull, fetch])
        return _release(spec, image, checkout)

    async def _fetch(self, spec: Spec) -> Checkout | None:
        if spec.source is None:
            return None
        return await self._source.checkout(spec.source, self._progress)


def _release(spec: Spec, image: Image, checkout: Checkout | None) -> Release:
    return Release(
        revision=spec.revision,
        image=spec.image,
        image_id=image.id,
        image_digest=image.digest,
        commit=checkout.commit if checkout else "",
        code_path=str(checkout.path) if checkout else "",
        code_dir=spec.code_dir or _labelled_code_dir(image),
        init_script=str(checkout.init_script) if checkout and checkout.init_script else "",
        ports=image.ports if spec.ports is None else spec.ports,
    )


def _labelled_code_dir(image: Image) -> str:
    text = image.labels.get(CODE_DIR_LABEL)
    if not text:
        return CODE_DIR
    try:
        return check_directory(text)
    except ValueError as exc:
        raise PortError(f"cannot use the image's label {CODE_DIR_LABEL}: it {exc}") from exc
