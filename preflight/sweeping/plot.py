"""`--plot`: a heat map of the peak over two axes for each GPU, with the line where it stops fitting."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

from preflight.planning import chart
from preflight.sweeping.axes import Axis, wrong
from preflight.sweeping.grid import Sweep
from preflight.sweeping.plane import TIGHT
from preflight.units import GIB

UNITS = {
    "batch": "batch (samples per GPU)",
    "frames": "frames",
    "height": "height (pixels)",
    "width": "width (pixels)",
    "resolution": "resolution (width × height, pixels)",
    "rank": "LoRA rank",
    "accumulation": "accumulation (steps)",
    "gpus": "GPUs",
    "sequence": "GPUs that share a sample",
    "blocks": "blocks on the host",
    "checkpointing": "gradient checkpointing",
}
TICKS = 12  # labels an axis has room for at 800 dots


def draw(found: Sweep, header: str, path: Path) -> None:
    """Writes the picture. Raises ConfigError where it is not two axes that are varied, or the file cannot be written."""
    import matplotlib as mpl
    import numpy as np

    varied = [n for n, axis in enumerate(found.axes) if len(axis.values) > 1]
    if len(varied) != 2:
        raise wrong(f"argument --plot: a heat map has two axes; {len(varied)} of those given have more than one value")
    across, up = (found.axes[n] for n in varied)
    peaks = [_plane(found.peak[n], varied) / GIB for n in range(len(found.gpus))]
    fits = [_plane(found.verdict[n], varied) <= TIGHT for n in range(len(found.gpus))]
    highest = max(float(np.max(plane)) for plane in peaks)
    look: Any = dict(chart.LOOK) | {"axes.grid": False}
    with mpl.rc_context(look):
        columns = min(2, len(found.gpus))
        rows = ceil(len(found.gpus) / columns)
        made, _ = chart.figure(4.4 if columns == 1 else 3.6 * rows + 0.6)
        made.clear()
        panels = made.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).reshape(-1)
        image: Any = None
        for panel, gpu, plane, fit, usable in zip(panels, found.gpus, peaks, fits, _usable(found), strict=False):
            shown = np.ma.masked_less(plane.T, 0)
            image = panel.imshow(
                shown, origin="lower", aspect="auto", cmap="viridis", vmin=0, vmax=highest, interpolation="nearest"
            )
            _edge(panel, fit.T)
            panel.set_title(f"{gpu.id}: {usable:.2f} GiB usable")
            _ticks(panel.xaxis, across, room=TICKS // columns)
            _ticks(panel.yaxis, up, room=TICKS)
        for panel in panels[len(found.gpus) :]:
            panel.set_visible(False)
        made.supxlabel(UNITS[across.name])
        made.supylabel(UNITS[up.name])
        made.suptitle(f"{header}\nred line: where it stops fitting", fontsize=10)
        made.colorbar(image, ax=list(panels), label="peak (GiB per GPU)")
    chart.save(made, path)


def _plane(values: Any, varied: list[int]) -> Any:
    return values.reshape([values.shape[n] for n in varied])


def _usable(found: Sweep) -> list[float]:
    return [float(found.usable[n].max()) / GIB for n in range(len(found.gpus))]


def _edge(panel: Any, fits: Any) -> None:
    """The border between cells that fit and cells that do not."""
    rows, columns = fits.shape
    for row in range(rows):
        for column in range(columns):
            if column + 1 < columns and fits[row, column] != fits[row, column + 1]:
                panel.plot([column + 0.5] * 2, [row - 0.5, row + 0.5], color=chart.RED, linewidth=2.5)
            if row + 1 < rows and fits[row, column] != fits[row + 1, column]:
                panel.plot([column - 0.5, column + 0.5], [row + 0.5] * 2, color=chart.RED, linewidth=2.5)


def _ticks(axis: Any, values: Axis, *, room: int) -> None:
    every = max(1, ceil(len(values.values) / room))
    places = list(range(0, len(values.values), every))
    labels = [values.shown(place) for place in places]
    axis.set_ticks(places, labels=labels)
    if axis.axis_name == "x" and sum(map(len, labels)) > 5 * room:
        axis.set_tick_params(rotation=40)
