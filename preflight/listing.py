"""What there is: the checks, GPUs, models and adapters, as text or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from preflight import adapters, catalog, checks
from preflight.adapters.table import Field
from preflight.units import GIB


def render(what: str, *, verbose: bool = False, form: str = "text") -> str:
    """The list of `what`, a key of LISTS, as a table; all that is known of each when `verbose`, and in JSON."""
    rows = list(LISTS[what]())
    if form == "json":
        return json.dumps({"schema": "preflight.list/1", what: rows}, indent=2) + "\n"
    if verbose:
        return "\n".join("".join(_long(row)) for row in rows)
    return _table([dict(list(row.items())[: SHORT[what]]) for row in rows])


def checks_table() -> str:
    """The checks as a Markdown table, for the page that describes them all."""
    rows = (f"| `{row['id']}` | {row['question']} |" for row in _checks())
    return "\n".join(("| check | what it asks |", "|---|---|", *rows)) + "\n"


def adapters_table() -> str:
    """Our own adapters as a Markdown table, for the same page."""
    rows = (f"| `{name}` | {adapters.documentation(name).partition(chr(10))[0]} |" for name in adapters.ADAPTERS)
    return "\n".join(("| adapter | reads |", "|---|---|", *rows)) + "\n"


def _checks() -> Iterator[dict[str, Any]]:
    for id_ in checks.ids():
        question, _, rest = checks.documentation(id_).partition("\n")
        parts = _parts(rest)
        yield {"id": id_, "question": question, **parts}


def _parts(text: str) -> dict[str, str]:
    """What, why and fix of a docstring, each on one line."""
    found: dict[str, str] = {}
    for line in text.split("\n"):
        word, colon, rest = line.partition(":")
        if colon and word in ("What", "Why", "Fix"):
            found[word.lower()] = rest.strip()
        elif line and found:
            last = next(reversed(found))
            found[last] = f"{found[last]} {line.strip()}"
    return found


def _gpus() -> Iterator[dict[str, Any]]:
    for gpu in catalog.gpus():
        has = {"bf16": gpu.bf16, "fp8": gpu.fp8, "flash attention": gpu.flash_attention}
        yield {
            "id": gpu.id,
            "name": gpu.name,
            "gib": round(gpu.memory_bytes / GIB, 2),
            "computes": [name for name, there in has.items() if there],
            "capability": gpu.compute_capability,
            "tflops": gpu.tflops,
            "aliases": list(gpu.aliases),
        }


def _models() -> Iterator[dict[str, Any]]:
    from preflight.memory.model import family

    for network in catalog.networks():
        yield {
            "id": network.id,
            "name": network.name,
            "parameters": network.parameters,
            "judged": family(network.family) is not None,
            "sizes": [f"{height}×{width}" for height, width in network.trained_sizes],
            "aliases": list(network.aliases),
        }


def _adapters() -> Iterator[dict[str, Any]]:
    for name in adapters.names():
        keys = [_key(entry) for table in adapters.by_name(name).tables for entry in table.fields]
        yield {"id": name, "reads": adapters.documentation(name).partition("\n")[0], "keys": keys}


def _key(entry: Field) -> dict[str, Any]:
    """A field as users know it; what begins with an underscore is the adapter's own business."""
    meant = [path for path in entry.paths if not path.startswith("_")]
    row: dict[str, Any] = {"keys": list(entry.keys), "means": meant, "takes": entry.convert.name}
    return {**row, "default": entry.default, "source": entry.source} if entry.source else row


LISTS: Mapping[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "checks": _checks,
    "gpus": _gpus,
    "models": _models,
    "adapters": _adapters,
}
#: How many columns a table shows of each.
SHORT: Mapping[str, int] = {"checks": 2, "gpus": 4, "models": 4, "adapters": 2}


def _table(rows: list[dict[str, Any]]) -> str:
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in cells)


def _long(row: dict[str, Any]) -> Iterator[str]:
    first, *others = row.items()
    yield f"{first[1]}\n"
    for name, value in others:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            yield from _keys(value)
        elif value not in (None, [], ""):
            yield f"  {name:<12}{_cell(value)}\n"


def _keys(rows: list[dict[str, Any]]) -> Iterator[str]:
    """One line a key: its names, what it means in the spec, and what holds without it."""
    for row in rows:
        means = f" → {', '.join(row['means'])}" if row["means"] else ""
        default = f"; without it {json.dumps(row['default'])} ({row['source']})" if "source" in row else ""
        yield f"  {' | '.join(row['keys'])}{means}: {row['takes']}{default}\n"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "not yet"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
