"""A sweep written down: for a person, as CSV and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from preflight.sweeping.grid import SHOWN, Sweep
from preflight.sweeping.plane import VERDICTS
from preflight.units import gib

SCHEMA = "preflight.sweep/1"
PAGE = SHOWN  # rows a person reads; of more only the frontier is shown
MARK = "< frontier"
WORDS = {"fits": "fits", "tight": "tight", "does-not-fit": "does not fit", "cannot-judge": "cannot be judged"}


def text(found: Sweep, header: str) -> str:
    """A table of at most PAGE rows: all points, or where there are more those on the frontier."""
    rows = list(_table(found))
    names = ("gpu", *(axis.name for axis in found.axes), "peak", "usable", "verdict", "")
    widths = [max(len(row[column]) for row in (names, *rows)) for column in range(len(names))]
    right = set(range(1, len(found.axes) + 3))
    lines = [header, ""]
    for row in (names, *rows):
        cells = (
            cell.rjust(width) if n in right else cell.ljust(width) for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, "", *_sums(found, len(rows))]) + "\n"


def csv(found: Sweep, _: str) -> str:
    """One line a point: the axes, bytes, the verdict, whether it is on the frontier, whether its peak is to the byte a check's."""
    names = (
        "gpu",
        *(axis.name for axis in found.axes),
        "peak_bytes",
        "activation_bytes",
        "usable_bytes",
        "verdict",
        "frontier",
        "exact",
    )
    return ",".join(names) + "\n" + "".join(_csv_lines(found))


def as_json(found: Sweep, _: str) -> str:
    """One document: `axes` as they were varied and `points`, in the order of a nested loop over gpu and axes."""
    shown = {
        axis.name: [axis.shown(index) if axis.name == "resolution" else value for index, value in enumerate(axis.values)]
        for axis in found.axes
    }
    points = ",\n".join(f"    {json.dumps(point)}" for point in _points(found))
    axes = json.dumps({"gpu": [card.id for card in found.gpus], **shown})
    reason = json.dumps(found.reason)
    return f'{{\n  "schema": "{SCHEMA}",\n  "axes": {axes},\n  "reason": {reason},\n  "points": [\n{points}\n  ]\n}}\n'


FORMATS: Mapping[str, Callable[[Sweep, str], str]] = {"text": text, "json": as_json, "csv": csv}


def _indices(found: Sweep) -> Iterator[tuple[int, ...]]:
    import numpy as np

    return (tuple(index) for index in np.ndindex(*found.peak.shape))


def _points(found: Sweep) -> Iterator[dict[str, Any]]:
    frontier = found.frontier()
    for index in _indices(found):
        peak, activations = int(found.peak[index]), int(found.activations[index])
        yield {
            "gpu": found.gpus[index[0]].id,
            **{axis.name: _value(axis.values[at]) for axis, at in zip(found.axes, index[1:], strict=True)},
            "peak_bytes": peak if peak >= 0 else None,
            "activation_bytes": activations if activations >= 0 else None,
            "usable_bytes": int(found.usable[index]),
            "verdict": VERDICTS[found.verdict[index]],
            "frontier": bool(frontier[index]),
            "exact": bool(found.exact[index]),
        }


def _value(value: Any) -> Any:
    return f"{value[0]}x{value[1]}" if isinstance(value, tuple) else value


def _csv_lines(found: Sweep) -> Iterator[str]:
    for point in _points(found):
        cells = ("" if value is None else str(value).lower() if isinstance(value, bool) else str(value) for value in point.values())
        yield ",".join(cells) + "\n"


def _table(found: Sweep) -> Iterator[tuple[str, ...]]:
    import numpy as np

    frontier = found.frontier()
    chosen = _indices(found) if found.peak.size <= PAGE else (tuple(index) for index in np.argwhere(frontier)[:PAGE])
    for index in chosen:
        peak = int(found.peak[index])
        yield (
            found.gpus[index[0]].id,
            *(axis.shown(at) for axis, at in zip(found.axes, index[1:], strict=True)),
            gib(peak) if peak >= 0 else "-",
            gib(int(found.usable[index])),
            WORDS[VERDICTS[found.verdict[index]]],
            MARK if frontier[index] else "",
        )


def _sums(found: Sweep, rows: int) -> Iterator[str]:
    counts = {name: int((found.verdict == code).sum()) for code, name in enumerate(VERDICTS)}
    parts = ", ".join(f"{count:,} {WORDS[name]}" for name, count in counts.items() if count)
    yield f"{found.peak.size:,} points: {parts}"
    edge = int(found.frontier().sum())
    if found.peak.size > PAGE:
        left = f"; {edge - rows:,} more of it" if edge > rows else ""
        yield f"only the frontier is shown: what fits, and one step more does not{left} (--format csv has every point)"
    elif edge:
        yield "frontier: fits, and one step more on some axis does not"
    if found.reason is not None:
        yield f"cannot be judged: {found.reason}"
