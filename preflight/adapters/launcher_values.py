"""Values of a launcher's own flags and files."""

from __future__ import annotations

import re
from typing import Any

from preflight.adapters.conversions import RANKS, SILENT, Conversion, RefusedError
from preflight.adapters.run_values import ANYTHING


def unless_auto(inner: Conversion) -> Conversion:
    """`inner`, or "auto", with which DeepSpeed's file leaves the value to the trainer."""

    def read(value: Any) -> Any:
        return SILENT if isinstance(value, str) and value.strip().lower() == "auto" else inner.read(value)

    schema = {"anyOf": [inner.schema, {"const": "auto"}]}
    return Conversion(name=inner.name, read=read, write=inner.write, schema=schema)


def gpu_ids() -> Conversion:
    """How many GPUs "0,1,3", "localhost:0,1" or "worker-0@worker-1:0,2" name; "all" says nothing."""
    expected = 'GPUs such as "0,1" or "localhost:0,1"'

    def read(value: Any) -> Any:
        spelled = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
        if spelled.lower() in ("all", ""):
            return SILENT
        counts = []
        for host in spelled.split("@"):
            slots = host.rpartition(":")[2]
            if not re.fullmatch(r"\d{1,3}([,-]\d{1,3})*", slots):
                return SILENT if re.fullmatch(r"[\w.-]+", host) else _refuse(expected)
            counts.append(len(slots.split(",")))
        return sum(counts)

    return Conversion(name="GPUs", read=read, write=lambda _value, _raw: SILENT, schema=ANYTHING)


def devices() -> Conversion:
    """Processes a node: a number, or "gpu" and "auto", which mean all that there are and say nothing; -1 likewise."""
    expected = f"a whole number from 1 to {RANKS:,}"

    def read(value: Any) -> Any:
        if value in ("gpu", "auto", -1):
            return SILENT
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= RANKS:
            raise RefusedError(expected)
        return value

    return Conversion(name="processes", read=read, write=lambda value, _: value, schema=ANYTHING)


def nodes() -> Conversion:
    """How many nodes: a number, or "1:4", of which torchrun takes as many as there are."""
    expected = 'a number of nodes such as 2, or "1:4"'

    def read(value: Any) -> Any:
        if value == -1:
            return SILENT
        match = re.fullmatch(r"\s*(?:\d{1,6}:)?(\d{1,6})\s*", str(value))
        if match is None or isinstance(value, bool | float) or not 1 <= int(match[1]) <= RANKS:
            raise RefusedError(expected)
        return int(match[1])

    return Conversion(name="nodes", read=read, write=lambda value, _: value, schema=ANYTHING)


def quantity() -> Conversion:
    """A number of elements, as JSON writes it: 5e8 is one."""
    expected = "a number of elements such as 5e8"

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e15:
            raise RefusedError(expected)
        return int(value)

    return Conversion(name="number of elements", read=read, write=lambda value, _: value, schema={"type": "number", "minimum": 0})


def _refuse(expected: str) -> Any:
    raise RefusedError(expected)
