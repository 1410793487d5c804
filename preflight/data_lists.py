"""Files whose top is a list: what a trainer's config names, and never the config itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.finding import ConfigError
from preflight.position import Position, kind, refusal

#: Keys that the items of such a list have, and what the file is then, and what to give instead.
KNOWN: tuple[tuple[frozenset[str], str, str], ...] = (
    (
        frozenset({"id", "type"}),
        "a list of SimpleTuner's data backends",
        "the config.json whose data_backend_config names it",
    ),
)  # fmt: skip


def refused(data: Any) -> ConfigError:
    """What to raise for a config whose top level is `data`, which is no mapping."""
    first = data[0] if isinstance(data, list) and data else None
    for keys, what, instead in KNOWN:
        if isinstance(first, Mapping) and keys <= set(first):
            return refusal("not-a-training-config", f"This is {what}, not a training config; give {instead}.", Position(1, 1))
    return refusal("not-a-mapping", f"The top level is {kind(data)}; expected keys and values.", Position(1, 1))
