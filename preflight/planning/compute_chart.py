"""Where inference overtakes training, on logarithmic axes."""

from __future__ import annotations

from pathlib import Path

from preflight.planning import chart
from preflight.planning.compute import Compute
from preflight.planning.numbers import scientific


def draw(found: Compute, path: Path) -> None:
    """Write the chart: inference rising with the minutes made, training flat at both bounds, and where they cross."""
    made, (axis,) = chart.figure(5.0)
    crossings, levels = found.crossover_minutes, found.training_flop
    left, right = min(crossings) / 100, max(crossings) * 100
    axis.plot(
        [left, right], [left * found.minute_flop, right * found.minute_flop], color=chart.BLUE, linewidth=2, label="inference"
    )
    names = ("training, low", "training, high") if len(levels) > 1 else ("training",)
    for name, level, crossing, colour in zip(names, levels, crossings, (chart.GREEN, chart.RED), strict=False):
        axis.axhline(level, color=colour, linewidth=2, linestyle="--", label=f"{name}: {scientific(level)} FLOP")
        axis.plot([crossing], [level], "o", color=colour, markersize=9)
        high = level == max(levels)
        axis.annotate(
            f"{crossing / 1e6:,.3g} million minutes",
            (crossing, level),
            xytext=(-10, 12) if high else (12, -18),
            textcoords="offset points",
            ha="right" if high else "left",
            color=colour,
        )
    if len(levels) > 1:
        axis.axhspan(min(levels), max(levels), color=chart.GREY, alpha=0.1, linewidth=0)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim(left, right)
    for platform in found.taken.platforms:
        axis.axvline(platform.minutes_a_day, color=chart.GREY, linewidth=1, linestyle=":")
    _platforms(found, axis)
    axis.set_xlabel("minutes of video made")
    axis.set_ylabel("FLOP")
    axis.set_title("Inference overtakes training", loc="left")
    axis.legend(loc="upper left", frameon=False)
    chart.save(made, path)


def _platforms(found: Compute, axis: object) -> None:
    """A day's uploads of each platform along the bottom, one below the other."""
    for row, platform in enumerate(found.taken.platforms):
        axis.annotate(  # type: ignore[attr-defined]
            f"{platform.name}, a day's uploads",
            (platform.minutes_a_day, 0.02 + 0.06 * row),
            xycoords=("data", "axes fraction"),
            xytext=(6, 0),
            textcoords="offset points",
            color=chart.GREY,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
