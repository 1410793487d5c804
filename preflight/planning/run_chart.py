"""Hours and cost of a config's run against the number of GPUs, and where it stops fitting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from preflight.planning import chart
from preflight.planning.run import Place, RunPlan


def draw(plan: RunPlan, path: Path) -> None:
    """Write the chart for the config's own kind of GPU: one line at the middle MFU, and the range of MFU as a band."""
    places = [place for place in plan.elsewhere if place.card.id == plan.here.card.id]
    made, (hours, cost) = chart.figure(6.4, rows=2)
    _panel(hours, plan, places, "wall hours", per_gpu=False)
    _panel(cost, plan, places, "cost, dollars", per_gpu=True)
    shown = sorted(plan.utilisations)
    band = f"{100 * shown[0]:g} to {100 * shown[-1]:g} %" if len(shown) > 1 else f"{100 * shown[0]:g} %"
    hours.set_title(f"{plan.spec.model.name}: {plan.length.steps:,} steps on {plan.here.card.name}, MFU {band}", loc="left")
    hours.legend(loc="best", frameon=False)
    cost.set_xlabel("GPUs")
    chart.save(made, path)


def _panel(axis: Any, plan: RunPlan, places: list[Place], label: str, *, per_gpu: bool) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    known = [(place, place.hours) for place in places if place.hours is not None]
    times = {place.gpus: hours * (place.gpus * place.price if per_gpu else 1) for place, hours in known}
    runs = [place.gpus for place, _ in known if place.runs]
    not_running = [place.gpus for place in places if not place.runs]
    shown = sorted(plan.utilisations)
    if runs:
        low, high = ([times[n] * plan.mfu / mfu for n in runs] for mfu in (shown[-1], shown[0]))
        axis.fill_between(runs, low, high, color=chart.BLUE, alpha=0.2, linewidth=0, label="range of MFU")
        axis.plot(runs, [times[n] for n in runs], "o-", color=chart.BLUE, label=f"fits, MFU {100 * plan.mfu:g} %")
    crosses = [n for n in not_running if n in times]
    if crosses:
        axis.plot(crosses, [times[n] for n in crosses], "x", color=chart.RED, markersize=9, markeredgewidth=2, label="does not fit")
    for count in not_running:
        axis.axvspan(count / 2**0.5, count * 2**0.5, color=chart.RED, alpha=0.08, linewidth=0)
    if plan.here.gpus in times:
        axis.plot([plan.here.gpus], [times[plan.here.gpus]], "o", mfc="none", mec=chart.GREY, markersize=14, label="this config")
    counts = [place.gpus for place in places]
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(counts, [f"{n:,}" for n in counts])
    axis.set_xlim(min(counts) / 2**0.5, max(counts) * 2**0.5)
    if per_gpu and times:
        every = [value * plan.mfu / mfu for value in times.values() for mfu in shown]
        axis.set_ylim(min(every) / 2, max(every) * 2)
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_ylabel(label)
