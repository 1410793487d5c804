"""Damaged configs of every family are read, or refused as a ConfigError: nothing else is ever raised."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preflight import document
from preflight.adapters import detect
from preflight.document import Document
from preflight.finding import ConfigError

CONFIGS = Path(__file__).parent / "adapters" / "configs"
ENDINGS = (".yaml", ".yml", ".json", ".toml", ".sh", ".env")
FAMILIES = sorted(folder.name for folder in CONFIGS.iterdir() if folder.is_dir())
BAD: tuple[Any, ...] = (
    None, True, "", "x", "-5", "1e400", "🙂" * 10, "\0", -1, 0, 3.5, 1e-9, 10**9, float("nan"), float("inf"),
    [], {}, [1, 2], ["a"], [[]], [None], {"a": 1}, {"x": None},
)  # fmt: skip
CHANGES = {"data.height": 64, "data.width": 64, "data.frames": 1, "train.batch": 1, "train.accumulation": 2, "offload.blocks": 3}


@cache
def launches(path: Path) -> tuple[Document, ...]:
    try:
        return tuple(filter(known, document.read_all(str(path))))
    except ConfigError:
        return ()


def known(config: Document) -> bool:
    try:
        detect(config)
    except ConfigError:
        return False
    return True


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for step, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*above, step)
        yield from places(item, (*above, step))


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=25, deadline=None)
@given(drawn=st.data())
def test_a_damaged_config_is_read_or_refused(family: str, drawn: st.DataObject) -> None:
    path = drawn.draw(st.sampled_from(sorted(path for path in (CONFIGS / family).iterdir() if path.suffix in ENDINGS)))
    for config in launches(path):
        data = copy.deepcopy(config.data)
        for _ in range(drawn.draw(st.integers(1, 3))):
            *above, last = drawn.draw(st.sampled_from(sorted(places(data), key=str)))
            group = data
            for step in above:
                group = group[step]
            if drawn.draw(st.booleans()):
                group[last] = copy.deepcopy(drawn.draw(st.sampled_from(BAD)))
            elif len(data) > 1 or group is not data:
                del group[last]
            if not data or not any(True for _ in places(data)):
                return
        try:
            reading = detect(config).read(replace(config, data=data))
        except ConfigError:
            continue
        if not any(finding.severity == "error" for finding in reading.findings):
            reading.spell(CHANGES)
