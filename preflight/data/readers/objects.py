"""What JSON's two formats share: a sample is an object, and one that says something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preflight.data.columns import NAMES, NEEDED, columns
from preflight.data.problem import refused

WORDS = {list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false", type(None): "null"}


def record(path: Path, value: Any, place: str) -> dict[str, Any]:
    """`value` as a row; a text alone is the sample's file. Raises ConfigError for anything else."""
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        return {"path": value}
    raise refused(path, f"holds {WORDS.get(type(value), 'something else')} ({place}), expected an object for each sample")


def known(path: Path, row: dict[str, Any]) -> None:
    """Raises ConfigError where the keys of the first sample say nothing that is known."""
    found = columns(row)
    if not any(field in found for field in NEEDED):
        shown = ", ".join(map(str, list(row)[:6]))[:80] or "none"
        expected = " or ".join(NAMES[field][0] for field in NEEDED)
        why = f"has no key that names a sample's file or caption (the first has {shown}), expected such as {expected}"
        raise refused(path, why, severity="note")
