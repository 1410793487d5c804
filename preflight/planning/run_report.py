"""The plan of a config as a person and as a program reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from preflight.header import header
from preflight.judge import Judgement
from preflight.planning.numbers import dumped, duration, lines, money, plain, scientific
from preflight.planning.run import Place, RunPlan
from preflight.report import Result
from preflight.units import gib

SCHEMA = "preflight.run-plan/1"
VERDICTS = {
    "fits": "fits",
    "tight": "fits, but tightly",
    "does-not-fit": "does not fit (preflight CONFIG says what to change)",
    "cannot-judge": "cannot be judged",
}


def text(plan: RunPlan, result: Result, *, verbose: bool) -> str:
    """The run, its memory, its time and cost over the range of MFU, and what the same money buys elsewhere."""
    spec, step, memory, here = plan.spec, plan.step, result.memory, plan.here
    parts = {"forward": step.forward, "backward": step.backward, "recomputed": step.recomputed, "encoders": step.encoders}
    said = ", ".join(f"{name} {scientific(flop)}" for name, flop in parts.items() if flop)
    needs = f"{gib(memory.peak_bytes or 0)} of {gib(memory.usable_bytes or 0)} usable: {VERDICTS[result.verdict]}"
    found = [
        *([result.header, ""] if result.header else []),
        *lines(
            "Run",
            {
                "Steps": f"{plan.length.steps:,} ({plan.length.source})",
                "Samples": f"{plan.length.samples:,} ({spec.effective_batch:,} a step)",
                "FLOP per step": f"{scientific(plan.step_flop)} on {here.gpus:,} x {here.card.id}",
                "  on each GPU": f"{scientific(step.total)} ({said})",
                "FLOP of the run": scientific(plan.step_flop * plan.length.steps),
            },
        ),
        *lines("Memory per GPU", {"Peak": needs, **({"Worst phase": memory.peak_phase} if memory.peak_phase else {})}),
        *_results(plan),
        *_elsewhere(plan),
        *([*_memory_table(plan), *_assumed(plan)] if verbose else []),
    ]
    return "\n".join(found).rstrip() + "\n"


def _results(plan: RunPlan) -> list[str]:
    shown = sorted(plan.utilisations)
    rows = {
        "MFU": [f"{100 * mfu:g}%" for mfu in shown],
        "Step": [_short(plan.hours(mfu) / plan.length.steps) for mfu in shown],
        "Wall time": [_short(plan.hours(mfu)) for mfu in shown],
        "GPU-hours": [f"{plan.hours(mfu) * plan.here.gpus:,.1f}" for mfu in shown],
        "Cost": [money(plan.hours(mfu) * plan.here.gpus * plan.here.price) for mfu in shown],
    }
    return lines("Results", {name: "".join(f"{cell:>12}" for cell in cells) for name, cells in rows.items()}, 13)


def _elsewhere(plan: RunPlan) -> Iterator[str]:
    if not plan.elsewhere:
        return
    counts = sorted({place.gpus for place in plan.elsewhere})
    bought = money(plan.here.cost or 0)
    yield f"[Elsewhere]  wall hours on so many GPUs at MFU {100 * plan.mfu:g}% (- does not run), and steps for {bought}"
    head = "".join(f"{f'h on {n:,}':>10}" for n in counts)
    yield f"  {'GPU':<17}{'$/h':>6}{'cost':>11}{'steps':>12}{head}"
    for card in dict.fromkeys(place.card.id for place in plan.elsewhere):
        places = {place.gpus: place for place in plan.elsewhere if place.card.id == card}
        runs = next((place for place in places.values() if place.runs), None)
        price = next(iter(places.values())).price
        cost = money(runs.cost) if runs is not None and runs.cost is not None else "-"
        steps = plan.affordable_steps(runs) if runs is not None else None
        cells = "".join(f"{_cell(places.get(n)):>10}" for n in counts)
        yield f"  {card:<17}{price:>6.2f}{cost:>11}{'-' if steps is None else format(steps, ','):>12}{cells}"
    yield ""


def _cell(place: Place | None) -> str:
    if place is None or not place.runs or place.hours is None:
        return "-"
    return f"{place.hours:,.1f}" if place.hours >= 1 else f"{place.hours:.2g}"


def _memory_table(plan: RunPlan) -> Iterator[str]:
    """Peak GiB of every place."""
    yield "[Memory elsewhere]  peak on each GPU"
    for place in plan.elsewhere:
        need = gib(place.peak_bytes) if place.peak_bytes is not None else "-"
        batch = f", effective batch {place.effective_batch:,}" if place.effective_batch is not None else ""
        yield f"  {place.gpus:>4} x {place.card.id:<17}{need:>14}  {place.verdict}{batch}"
    yield ""


def _assumed(plan: RunPlan) -> Iterator[str]:
    yield "[Assumptions]"
    yield from (f"  {line}" for line in assumptions(plan))
    yield ""


def assumptions(plan: RunPlan) -> list[str]:
    """One sentence each, with the option that changes it where there is one."""
    uncounted = [f"{name} runs in every step and its operations are not counted." for name in plan.step.uncounted]
    return [
        "Operations are those of products and convolutions, as torch.utils.flop_counter has them; Fourier transforms are free.",
        "MFU is the share of the GPU's peak that all operations reach, those run again by checkpointing too (--mfu).",
        f"The peak is {plain(plan.here.tflops)} TFLOP/s on {plan.here.card.id} in this run's precision, from the catalog.",
        "Every number of GPUs reaches the same MFU: communication is not modelled.",
        "Loading, sampling and saving take no time; validation is not counted.",
        f"Every GPU-hour costs ${plan.here.price:g} unless another price is given (--gpu-price 2.0, --gpu-price a100-80gb=1.2).",
        *uncounted,
    ]


def _short(hours: float) -> str:
    return duration(hours).partition(" (")[0]


def json(plan: RunPlan, result: Result) -> str:
    """The same for programs: operations, hours, dollars and bytes, unrounded."""
    step, memory = plan.step, result.memory
    return dumped(
        {
            "schema": SCHEMA,
            "config": result.config,
            "verdict": result.verdict,
            "run": {
                "steps": plan.length.steps,
                "steps_source": plan.length.source,
                "samples": plan.length.samples,
                "effective_batch": plan.spec.effective_batch,
            },
            "step_flop": {
                "total": plan.step_flop,
                "per_gpu": step.total,
                "forward": step.forward,
                "backward": step.backward,
                "recomputed": step.recomputed,
                "encoders": step.encoders,
            },
            "memory_per_gpu": {"peak_bytes": memory.peak_bytes, "usable_bytes": memory.usable_bytes, "phase": memory.peak_phase},
            "here": _place(plan, plan.here),
            "mfu": [
                {
                    "mfu": mfu,
                    "wall_hours": plan.hours(mfu),
                    "gpu_hours": plan.hours(mfu) * plan.here.gpus,
                    "cost_usd": plan.hours(mfu) * plan.here.gpus * plan.here.price,
                }
                for mfu in sorted(plan.utilisations)
            ],
            "elsewhere": [_place(plan, place) for place in plan.elsewhere],
            "assumptions": assumptions(plan),
        }
    )


def _place(plan: RunPlan, place: Place) -> dict[str, Any]:
    return {
        "gpu": place.card.id,
        "gpus": place.gpus,
        "verdict": place.verdict,
        "tflops": place.tflops,
        "price_usd": place.price,
        "peak_bytes": place.peak_bytes,
        "effective_batch": place.effective_batch,
        "wall_hours": place.hours,
        "gpu_hours": place.gpu_hours,
        "cost_usd": place.cost,
        "steps_for_the_same_cost": plan.affordable_steps(place),
    }


def shown(result: Result, judgement: Judgement, plan: RunPlan) -> Result:
    """`result` for the number of GPUs that was planned, where that is not the config's own."""
    if result.spec is not None and result.spec.parallel.gpus == plan.here.gpus:
        return result
    header_ = header(result.adapter or "", judgement.case)
    return replace(result, memory=judgement.memory, verdict=judgement.verdict, findings=judgement.findings, header=header_)
