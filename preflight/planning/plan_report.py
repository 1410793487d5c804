"""A plan as a person and as a program reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from preflight.planning.numbers import counted, dumped, lines, money, plain
from preflight.planning.plan import Plan
from preflight.units import GIB

SCHEMA = "preflight.plan/1"


def text(plan: Plan, *, verbose: bool) -> str:
    """The five sections, what would fit where nothing does, and with `verbose` what was assumed."""
    clip, limit = plan.clip, plan.limits
    clip_words = f"{clip.frames:,} frames at {plain(clip.fps)} fps ({plain(round(clip.seconds, 2))} s)"
    batch = plan.batch.samples or 1
    activations = plan.activation_bytes(batch)
    total = plan.states_bytes + activations
    found = [
        *lines(
            "Input",
            {
                "Wall time": f"{plain(plan.wall_hours)} hours ({plan.wall_hours / 24:,.1f} days)",
                "n_gpu": f"{plan.gpus:,}",
                "Clip": f"{clip.size}, {clip_words}",
                "Diffusion steps": f"{plan.steps:,}",
            },
        ),
        *lines(
            "Hardware",
            {
                "GPU": f"{plan.gpus:,}x {plan.card.name}, {plain(plan.card.tflops)} TFLOP/s",
                "MFU": f"{100 * plan.mfu:g}%",
                "GPU-hours": plain(round(plan.gpu_hours, 2)),
            },
        ),
        *lines(
            "Chinchilla Optimal",
            {
                "N_opt": f"{counted(plan.parameters)} (hidden_dim={plan.hidden:,})",
                "D_opt": f"{counted(plan.patches)} patches = {plain(plan.assumptions.tokens_per_parameter)} * N",
                "Training data": f"{_hours(plan.video_hours)} of video",
            },
        ),
        *lines(
            "Memory per GPU",
            {
                "Model+Optimizer": f"{_gib(plan.states_bytes)} (FSDP)",
                "Activations": f"{_gib(activations)} (batch={batch}), at most {_gib(limit.activations)}",
                "Total": f"{_gib(total)} of {_gib(limit.usable)} usable ({_gib(limit.capacity)} on the GPU)",
            },
        ),
        *lines("Results", {"Batch size": _batch(plan), "Cost": money(plan.cost)}),
        *([] if plan.fits else [*_refusal(plan), ""]),
        *([*_assumed(plan), ""] if verbose else []),
    ]
    return "\n".join(found[:-1]) + "\n"


def _batch(plan: Plan) -> str:
    if not plan.fits:
        return "none: not even one sample fits"
    batch = plan.batch
    return str(batch.samples) if batch.samples == plan.largest_batch else f"{batch.samples} ({batch.rounding})"


def _refusal(plan: Plan) -> Iterator[str]:
    need, limit = plan.activation_bytes(1), plan.limits
    yield (
        f"does not fit: one sample of {plan.clip.size} with {plan.clip.frames:,} frames needs {_gib(need)} of activations "
        f"beside {_gib(plan.states_bytes)} of model and optimizer."
    )
    if plan.largest_clips:
        yield "The largest that fits:"
        yield from (f"  {clip.size} with {clip.frames:,} frames" for clip in plan.largest_clips)
    else:
        yield f"No clip fits: of the {_gib(limit.usable)} that are usable, the model leaves too little for a single patch column."


def _assumed(plan: Plan) -> Iterator[str]:
    yield "[Assumptions]"
    for name, value, option, source in assumptions(plan):
        yield f"  {name + ':':<26}{plain(value):<9}{option:<25}{source}"


def assumptions(plan: Plan) -> list[tuple[str, float, str, str]]:
    """(what, its value, the option that changes it, where it comes from) of everything the formulas take for granted."""
    taken, clip = plan.assumptions, plan.clip
    return [
        ("patches per parameter", taken.tokens_per_parameter, "--tokens-per-parameter", "Hoffmann et al. 2022, arXiv 2203.15556"),
        ("FLOP per parameter, patch", taken.flop_per_parameter, "--flop-per-parameter", "Kaplan et al. 2020, arXiv 2001.08361"),
        ("noise levels per patch", plan.steps, "--steps", "N_opt = sqrt(C / 120 / steps); trainers often draw 1"),
        ("bytes per parameter", taken.bytes_per_parameter, "--bytes-per-parameter", "ZeRO, arXiv 1910.02054: 2 + 2 + 12 (Adam)"),
        ("bytes per activation", taken.bytes_per_activation, "--bytes-per-activation", "16-bit; one per patch, channel, layer"),
        ("layers", taken.layers, "--layers", "hidden_dim = sqrt(N / (12 * layers)), Kaplan et al. 2020"),
        ("pixels per latent", clip.spatial, "--spatial-stride", "autoencoders of Wan, HunyuanVideo, CogVideoX"),
        ("frames per latent", clip.temporal, "--temporal-stride", "the same; a last part is dropped"),
        ("latents per patch side", clip.patch, "--patch", "DiT, arXiv 2212.09748: patches of 2 x 2"),
        ("activations' share", taken.threshold, "--threshold", "the gate's rule for activations"),
        ("GPU memory, GiB", round(plan.limits.capacity / GIB, 2), "--gpu-type", "what torch reports, from the catalog"),
        ("usable, GiB", round(plan.limits.usable / GIB, 2), "--gpu-type", "less CUDA context, NCCL and the error band"),
        ("TFLOP/s per GPU", plan.card.tflops, "--gpu-type", plan.card.source["compute"].strip()),
        ("dollars per GPU-hour", plan.price, "--gpu-price", "an assumption; look at your own bill"),
    ]


def json(plan: Plan) -> str:
    """The same for programs: numbers unrounded, bytes, hours and dollars."""
    clip, limit, batch = plan.clip, plan.limits, plan.batch
    return dumped(
        {
            "schema": SCHEMA,
            "fits": plan.fits,
            "input": {
                "wall_hours": plan.wall_hours,
                "gpus": plan.gpus,
                "width": clip.width,
                "height": clip.height,
                "frames": clip.frames,
                "fps": clip.fps,
                "steps": plan.steps,
            },
            "hardware": {"gpu": plan.card.id, "tflops": plan.card.tflops, "mfu": plan.mfu, "gpu_hours": plan.gpu_hours},
            "chinchilla": {
                "flop": plan.flop,
                "parameters": plan.parameters,
                "hidden_dim": plan.hidden,
                "patches": plan.patches,
                "patches_per_clip": clip.patches,
                "video_hours": plan.video_hours,
            },
            "memory_per_gpu": {
                "states_bytes": plan.states_bytes,
                "activation_bytes": plan.activation_bytes(batch.samples or 1),
                "total_bytes": plan.states_bytes + plan.activation_bytes(batch.samples or 1),
                "activation_limit_bytes": limit.activations,
                "usable_bytes": limit.usable,
                "capacity_bytes": limit.capacity,
            },
            "results": {"batch": batch.samples, "largest_batch": plan.largest_batch, "cost_usd": plan.cost},
            "largest": [{"width": c.width, "height": c.height, "frames": c.frames} for c in plan.largest_clips],
            "assumptions": [_assumption(*row) for row in assumptions(plan)],
        }
    )


def _assumption(name: str, value: float, option: str, source: str) -> dict[str, Any]:
    return {"name": name, "value": value, "option": option, "source": source}


def _gib(nbytes: float) -> str:
    return f"{nbytes / GIB:,.1f} GiB"


def _hours(hours: float) -> str:
    return f"{hours:,.0f} hours" if hours >= 10 else f"{hours:,.2g} hours"
