"""Training against inference as a person and as a program reads it."""

from __future__ import annotations

from typing import Any

from preflight.planning.compute import Compute
from preflight.planning.numbers import dumped, lines, plain, scientific

SCHEMA = "preflight.compute/1"


def text(found: Compute, *, verbose: bool) -> str:
    """Training, inference, the crossover, the demand and the comparison; with `verbose` every factor and its option."""
    t = found.taken
    days = {f"  {name}": f"{_span(spans, '{:.3g}')} days of uploads" for name, spans in found.crossover_days.items()}
    images = found.crossover_images
    outputs = {f"{name}, {unit}": f"{scientific(flop)} FLOP" for name, (unit, flop) in found.outputs.items()}
    factors = (
        f"{scientific(t.reference_flop)} x {t.model_scale:g} x {_span(t.data_scale, '{:g}')} x {found.frames:g} x {t.video_share:g}"
    )
    step_factors = f"{scientific(t.step_flop)} x {t.model_scale:g} x {found.frames:g}"
    average = found.generated_minutes / 24 / found.minutes_per_gpu_hour
    sections = [
        *lines(
            "Training",
            {
                "Compute": f"{_span(found.training_flop, scientific)} FLOP = {factors}",
                "GPUs for a month": f"{_span(found.gpu_months, '{:,.0f}')} x {t.gpu} ({t.tflops:g} TFLOP/s)",
                "Reference model": f"{scientific(t.reference_flop)} FLOP, {found.reference_gpu_months:.2g} GPU-months",
            },
            _WIDE,
        ),
        *lines(
            "Inference",
            {
                "Step": f"{scientific(found.clip_step_flop)} FLOP = {step_factors}",
                "Minute of video": f"{scientific(found.minute_flop)} FLOP, {t.sampling_steps:,} steps",
                "Image": f"{scientific(found.image_flop)} FLOP with the reference model",
                "Minutes per GPU-hour": f"{found.minutes_per_gpu_hour:.3g}",
            },
            _WIDE,
        ),
        *lines(
            "Inference overtakes training",
            {
                "After": f"{_span([m / 1e6 for m in found.crossover_minutes], '{:.1f}')} million minutes of video",
                **days,
                "Reference model": f"{images / 1e6:.3g} million images ({images / t.images_a_day * 24:.2g} hours of uploads)",
            },
            _WIDE,
        ),
        *lines(
            "Peak demand",
            {
                "Generated": f"{found.generated_minutes / 1e6:.4g} million minutes a day ({_shares(found)})",
                "GPUs on average": f"{average:,.0f} at full speed",
                "GPUs at the peak": (
                    f"{plain(float(f'{found.peak_gpus:.3g}'))} "
                    f"(x {t.candidates:g} candidates x {t.peak_factor:g} at the peak / {t.utilisation:g} utilisation)"
                ),
            },
            _WIDE,
        ),
        *lines("Per unit of output", outputs, max(len(name) for name in outputs) + 3),
    ]
    if verbose:
        sections += ["[Assumptions]", *(f"  {name:<24}{value:<36}{source}" for name, value, source in assumptions(found)), ""]
    return "\n".join(sections[:-1]) + "\n"


_WIDE = 24


def assumptions(found: Compute) -> list[tuple[str, str, str]]:
    """(option, value, where it comes from) of every factor."""
    t = found.taken
    return [
        ("--reference-flop", scientific(t.reference_flop), "DiT-XL, arXiv 2212.09748"),
        ("--model-scale", f"{t.model_scale:g}", "20 billion parameters over 675 million, a guess of the source"),
        ("--data-scale", ",".join(f"{n:g}" for n in t.data_scale), "low and high, a guess of the source"),
        ("--video-share", f"{t.video_share:g}", "half of the data, a guess of the source"),
        ("--seconds", f"{t.seconds:g}", "the longest clip the model makes"),
        ("--fps", f"{t.fps:g}", "frames a second"),
        ("--compression", f"{t.compression:g}", "frames per latent frame, taken to be as DiT's in space"),
        ("--tflops", f"{t.tflops:g}", "H100 SXM, bfloat16 dense: NVIDIA's white paper; --gpu takes the catalog's"),
        ("--training-utilisation", f"{t.training_utilisation:g}", "the source counts the peak"),
        ("--month-days", f"{t.month_days:g}", ""),
        ("--step-flop", scientific(t.step_flop), "DiT-XL at 512 x 512, one step"),
        ("--sampling-steps", f"{t.sampling_steps}", "as DiT samples"),
        ("--digits", f"{t.digits}", "significant digits the source goes on with"),
        (
            "--platform",
            "; ".join(f"{p.name}={p.minutes_a_day:.3g}:{p.share:g}".replace("e+0", "e") for p in t.platforms),
            "minutes uploaded a day: share generated",
        ),
        ("--images-a-day", scientific(t.images_a_day), "uploaded to Instagram"),
        ("--candidates", f"{t.candidates:g}", "made for each that is kept; assumed"),
        ("--utilisation", f"{t.utilisation:g}", "share of the peak speed in production; assumed"),
        ("--peak-factor", f"{t.peak_factor:g}", "busiest hour over the average; gives the source's 720,000"),
        ("--tokens", f"{t.tokens}", "of a document"),
        ("--language-model", "; ".join(f"{name}={scientific(n)}" for name, n in t.language_models.items()), "active parameters"),
    ]


def json(found: Compute) -> str:
    """The same for programs, unrounded but for what is carried with few digits."""
    t = found.taken
    platforms = [{"name": p.name, "minutes_a_day": p.minutes_a_day, "share": p.share} for p in t.platforms]
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "assumptions": {
            "reference_flop": t.reference_flop,
            "model_scale": t.model_scale,
            "data_scale": list(t.data_scale),
            "latent_frames": found.frames,
            "video_share": t.video_share,
            "gpu": t.gpu,
            "tflops": t.tflops,
            "training_utilisation": t.training_utilisation,
            "month_days": t.month_days,
            "step_flop": t.step_flop,
            "sampling_steps": t.sampling_steps,
            "digits": t.digits,
            "platforms": platforms,
            "images_a_day": t.images_a_day,
            "candidates": t.candidates,
            "utilisation": t.utilisation,
            "peak_factor": t.peak_factor,
        },
        "training": {"flop": list(found.training_flop), "gpu_months": list(found.gpu_months)},
        "inference": {
            "step_flop": found.clip_step_flop,
            "clip_flop": found.clip_flop,
            "minute_flop": found.minute_flop,
            "image_flop": found.image_flop,
            "minutes_per_gpu_hour": found.minutes_per_gpu_hour,
        },
        "crossover": {
            "minutes": list(found.crossover_minutes),
            "days": {name: list(days) for name, days in found.crossover_days.items()},
            "reference_images": found.crossover_images,
        },
        "demand": {"minutes_a_day": found.generated_minutes, "peak_gpus": found.peak_gpus},
        "outputs": [{"name": name, "unit": unit, "flop": flop} for name, (unit, flop) in found.outputs.items()],
    }
    return dumped(document)


def _shares(found: Compute) -> str:
    return ", ".join(f"{100 * p.share:g}% of {p.name}" for p in found.taken.platforms)


def _span(values: Any, form: Any) -> str:
    """The bounds as "low to high", or the one there is."""
    said = [form(value) if callable(form) else form.format(value) for value in values]
    return " to ".join(dict.fromkeys(said))
