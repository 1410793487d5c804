"""Values about the run as a whole. They change no step's memory, so a strange one must not stop the judging and says nothing."""

from __future__ import annotations

import math
from typing import Any

from preflight.adapters.conversions import SILENT, STEPS, Conversion, RefusedError

ANYTHING = {"type": ["string", "number", "boolean", "array", "object"]}
#: How the weights of hubs are told from those of a disk: `org/name` may be either, and is taken for a hub's.
HERE = ("/", "./", "../", "~")


def count(low: int = 1, high: int = STEPS) -> Conversion:
    """A whole number in [low, high]. A fraction (a ratio of the run), -1 or "all" say nothing of it."""

    def read(value: Any) -> Any:
        _something(value, f"a whole number of at least {low}")
        number = int(value) if isinstance(value, float) and value.is_integer() else value
        if isinstance(number, int) and not isinstance(number, bool) and low <= number <= high:
            return number
        return SILENT

    return Conversion(name="count", read=read, write=lambda value, _: value, schema=ANYTHING)


def _something(value: Any, expected: str) -> None:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        raise RefusedError(expected)


def place(*, local: bool = False) -> Conversion:
    """A file or folder, or the first of several; with `local` only one that cannot be the name of something on a hub."""

    def read(value: Any) -> Any:
        _something(value, "a path")
        first = value[0] if isinstance(value, list) and value else value
        if not isinstance(first, str) or not first.strip() or "://" in first or len(first) > 4096:
            return SILENT
        return first.strip() if not local or first.strip().startswith(HERE) else SILENT

    return Conversion(name="path", read=read, write=lambda value, _: value, schema=ANYTHING)


def both(first: Conversion, second: Conversion) -> Conversion:
    """One value for two paths, each read in its own way; only the first may refuse it."""

    def read(value: Any) -> tuple[Any, Any]:
        return first.read(value), second.read(value)

    def write(value: tuple[Any, Any], raw: Any) -> Any:
        return first.write(value[0], raw)

    return Conversion(name=first.name, read=read, write=write, schema=first.schema)
