"""Which texts of a spec must never be shown."""

from __future__ import annotations

import re
from collections.abc import Iterator

from almagent.core.model import Secret, Spec

LONG_VALUE = 8  # characters; shorter values of the environment are words that logs are made of ...
SECRET_NAME = re.compile(r"pass|secret|token|key|pwd|cred", re.IGNORECASE)  # ... unless named so


def secrets_of(spec: Spec) -> Iterator[Secret]:
    for name, value in spec.environment.items():
        if len(value.reveal()) >= LONG_VALUE or SECRET_NAME.search(name):
            yield value
    source, registry = spec.source, spec.registry
    means = (
        source and source.username,
        source and source.password,
        source and source.private_key,
        registry and registry.password,
    )
    yield from filter(None, means)
