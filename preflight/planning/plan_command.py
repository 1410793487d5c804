"""`preflight plan`: its arguments, and what it answers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from preflight.finding import ConfigError, Finding
from preflight.planning import chinchilla, cost, fit, video
from preflight.planning.numbers import listed, positive, share, whole
from preflight.rule import THRESHOLD

if TYPE_CHECKING:
    from preflight.catalog import Gpu

DESCRIPTION = """\
Without a CONFIG: the model size, the amount of video, the batch and the cost that make the most of so many hours on so many
GPUs (the compute-optimal scaling law of Hoffmann et al. 2022, for video diffusion).
With a CONFIG: what this run computes, how long it takes, what it costs, and what the same money buys on other GPUs.
"""
EPILOG = """\
examples:
  preflight plan -t 40 -n 8 -r 720p -f 50 --fps 10 --mfu 0.4 --gpu-type H100
  preflight plan configs/train_a100.yaml --samples 20000 --epochs 5
  preflight plan configs/train_a100.yaml -t 48 --plot plan.svg
"""
HOURS, GPUS, FRAMES, FPS, STEPS, DOLLARS = 1e7, 10**7, 10**7, 1e4, 10**5, 1e6
FORMULA_ONLY = ("resolution", "frames", "fps", "steps")
CONFIG_ONLY = ("training_steps", "samples", "epochs", "compare", "counts", "plot", "adapter")
COMPARED = ("a100-80gb", "h100-80gb", "h200-141gb", "b200-180gb", "l40s-48gb", "rtx4090-24gb", "v100-32gb")
COUNTS = (1, 2, 4, 8, 16, 32)
MFU, MFUS = 0.3, (0.3, 0.4, 0.5)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything the command takes; nothing is required of argparse, since a CONFIG changes what is needed."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("config", nargs="?", metavar="CONFIG", help="plan this training config (YAML, TOML or JSON) instead of an ideal model")
    budget = parser.add_argument_group("budget").add_argument
    budget("-t", "--wall-time", type=positive("hours of wall time", HOURS), metavar="HOURS", help="how long all GPUs run")
    budget("-n", "--n-gpu", type=whole("a number of GPUs", GPUS), metavar="N", help="how many GPUs")
    budget("--gpu-type", metavar="NAME", help="a GPU of the catalog, such as A100 or l40s-48gb (default H100, or the config's)")
    help_ = "share of the GPU's peak speed that is reached (default 0.3; for a CONFIG several: 0.3,0.4,0.5)"
    budget("--mfu", type=listed(share("an MFU")), metavar="SHARE", help=help_)
    help_ = f"dollars for a GPU-hour (default {cost.PRICE:g}); with a CONFIG also for one kind of GPU: a100-80gb=1.2"
    budget("--gpu-price", action="append", default=[], type=_price, metavar="USD", help=help_)
    clip = parser.add_argument_group("clip (without a CONFIG)").add_argument
    clip("-r", "--resolution", type=video.size, metavar="SIZE", help=f"{', '.join(video.PRESETS)} or WIDTHxHEIGHT")
    clip("-f", "--frames", type=whole("a number of frames", FRAMES), metavar="N", help="frames of a clip")
    clip("--fps", type=positive("frames a second", FPS), metavar="N", help="frames a second (default 24)")
    clip("-s", "--steps", type=whole("a number of diffusion steps", STEPS), metavar="N", help="noise levels a clip (default 10)")
    taken = parser.add_argument_group("assumptions (without a CONFIG; -v shows them with their sources)").add_argument
    ratio = positive("a ratio", 1e6)
    taken("--tokens-per-parameter", type=ratio, default=chinchilla.TOKENS_PER_PARAMETER, metavar="N", help="patches (20)")
    taken("--flop-per-parameter", type=ratio, default=chinchilla.FLOP_PER_PARAMETER, metavar="N", help="for each patch (6)")
    taken("--bytes-per-parameter", type=ratio, default=fit.BYTES_PER_PARAMETER, metavar="N", help="of all states (16)")
    taken("--bytes-per-activation", type=ratio, default=fit.BYTES_PER_ACTIVATION, metavar="N", help="per patch, channel, layer (2)")
    taken("--layers", type=whole("a number of layers", 10_000), default=chinchilla.LAYERS, metavar="N", help="of the model (24)")
    taken("--patch", type=whole("a patch size", 1024), default=video.PATCH, metavar="N", help="latents along its side (2)")
    taken("--spatial-stride", type=whole("a stride", 1024), default=video.SPATIAL_STRIDE, metavar="N", help="pixels a latent (8)")
    taken("--temporal-stride", type=whole("a stride", 1024), default=video.TEMPORAL_STRIDE, metavar="N", help="frames a latent (4)")
    run = parser.add_argument_group("run (with a CONFIG)").add_argument
    run("--training-steps", type=whole("a number of steps", 10**12), metavar="N", help="optimizer steps (default: the config's)")
    run("--samples", type=whole("a number of samples", 10**15), metavar="N", help="samples of the data set, in place of steps")
    run("--epochs", type=positive("a number of epochs", 1e9), metavar="N", help="how often each is seen (default 1)")
    run("--compare", type=listed(str), metavar="NAME,...", help="other GPUs for the table (default: a selection; all: every one)")
    run("--counts", type=listed(whole("a number of GPUs", GPUS)), metavar="N,...", help="numbers of GPUs for it (default 1 to 32)")
    run("--plot", metavar="svg|png|FILE", help="draw hours and cost against the number of GPUs (needs the plot extra)")
    run("--adapter", metavar="NAME", help="the trainer whose config this is (default: seen from its keys)")
    run("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the config")
    add("--threshold", type=share("a share"), default=THRESHOLD, metavar="SHARE", help="largest share for activations (0.7)")
    add("--json", action="store_true", help="for programs: one JSON document")
    add("-v", "--verbose", action="store_true", help="print every assumption with its source")


def run(options: argparse.Namespace) -> tuple[str, int]:
    """The answer and the exit status: 0 where it fits, else 1. Raises ConfigError for a wrong command line."""
    given = [name for name in (CONFIG_ONLY if options.config is None else FORMULA_ONLY) if getattr(options, name) is not None]
    if given:
        flag = f"--{given[0].replace('_', '-')}"
        where = "needs a CONFIG" if options.config is None else "is for plans without a CONFIG, which says it itself"
        raise _wrong(f"argument {flag}: {where}")
    return _formula(options) if options.config is None else _config(options)


def _formula(options: argparse.Namespace) -> tuple[str, int]:
    from preflight.planning import hardware, plan_report
    from preflight.planning.plan import Assumptions, Plan

    needed = {"-t/--wall-time": "wall_time", "-n/--n-gpu": "n_gpu", "-r/--resolution": "resolution", "-f/--frames": "frames"}
    missing = [flag for flag, name in needed.items() if getattr(options, name) is None]
    if missing:
        raise _wrong(f"without a CONFIG the following arguments are required: {', '.join(missing)}")
    if options.mfu is not None and len(options.mfu) > 1:
        raise _wrong("argument --mfu: several values need a CONFIG")
    by_gpu, price = _prices(options.gpu_price)
    card = hardware.gpu("H100" if options.gpu_type is None else options.gpu_type)
    width, height = options.resolution
    clip = video.Clip(
        width=width,
        height=height,
        frames=options.frames,
        fps=options.fps or 24.0,
        spatial=options.spatial_stride,
        temporal=options.temporal_stride,
        patch=options.patch,
    )
    if not clip.patches:
        raise _wrong(
            f"argument -r/--resolution: {clip.size} is smaller than one patch, which covers {clip.step} x {clip.step} pixels"
        )
    plan = Plan(
        wall_hours=options.wall_time,
        gpus=options.n_gpu,
        card=card,
        mfu=options.mfu[0] if options.mfu else MFU,
        price=by_gpu.get(card.id, price),
        steps=options.steps or 10,
        clip=clip,
        assumptions=Assumptions(
            tokens_per_parameter=options.tokens_per_parameter,
            flop_per_parameter=options.flop_per_parameter,
            bytes_per_parameter=options.bytes_per_parameter,
            bytes_per_activation=options.bytes_per_activation,
            layers=options.layers,
            threshold=options.threshold,
        ),
    )
    text = plan_report.json(plan) if options.json else plan_report.text(plan, verbose=options.verbose)
    return text, 0 if plan.fits else 1


def _config(options: argparse.Namespace) -> tuple[str, int]:
    from preflight import reporters
    from preflight.job import job
    from preflight.judge import judge_job
    from preflight.pipeline import inspect
    from preflight.planning import hardware, run_report
    from preflight.planning.run import Prices, plan
    from preflight.planning.schedule import on_gpus
    from preflight.report import Report

    by_gpu, price = _prices(options.gpu_price)
    cards = _compared(options.compare)
    destination = _destination(options.plot)
    asked = None if options.gpu_type is None else hardware.gpu(options.gpu_type).id
    result = inspect(
        options.config,
        adapter=options.adapter,
        overrides=options.set,
        text=options.standard_input() if options.config == "-" else None,
        gpu=asked,
        fallback_gpu=options.fallback_gpu,
        threshold=options.threshold,
    )
    if result.spec is None or result.memory.peak_bytes is None or result.memory.capacity_bytes is None:
        return reporters.render(Report(results=(result,)), "json" if options.json else "text", reporters.PLAIN), 1
    name = asked or result.spec.hardware.gpu or options.fallback_gpu()
    work = job(result.spec, hardware.gpu(name))
    if options.n_gpu is not None and options.n_gpu != result.spec.parallel.gpus:
        moved = on_gpus(result.spec, options.n_gpu)
        if moved is None:
            group = result.spec.parallel.sequence * result.spec.parallel.tensor
            raise _wrong(f"argument -n/--n-gpu: {options.n_gpu} GPUs cannot be divided into the config's groups of {group}")
        work = work.with_spec(moved)
    judgement = judge_job(work, options.threshold)
    made = plan(
        work,
        judgement,
        utilisations=options.mfu or MFUS,
        prices=Prices(default=price, by_gpu=by_gpu),
        cards=tuple({card.id: card for card in (work.gpu, *cards) if card is not None}.values()),
        counts=options.counts or tuple(sorted({*COUNTS, work.spec.parallel.gpus})),
        threshold=options.threshold,
        wall_hours=options.wall_time,
        steps=options.training_steps,
        samples=options.samples,
        epochs=options.epochs,
    )
    if destination is not None:
        from preflight.planning import run_chart

        run_chart.draw(made, destination)
    shown = run_report.shown(result, judgement, made)
    text = run_report.json(made, shown) if options.json else run_report.text(made, shown, verbose=options.verbose)
    if destination is not None and not options.json:
        text += f"\nchart written to {destination}\n"
    return text, 0 if made.here.runs else 1


def _compared(names: Sequence[str] | None) -> tuple[Gpu, ...]:
    from preflight import catalog
    from preflight.planning import hardware

    if names == ("all",):
        return catalog.gpus()
    return tuple(hardware.gpu(name) for name in (COMPARED if names is None else names))


def _price(text: str) -> tuple[str | None, float]:
    name, sign, value = text.rpartition("=")
    return (name.strip() if sign else None), positive("a price in dollars", DOLLARS)(value)


def _prices(given: Sequence[tuple[str | None, float]]) -> tuple[dict[str, float], float]:
    """By catalog id, and for all others. Raises ConfigError for a GPU that no catalog has."""
    from preflight.planning import hardware

    by_gpu = {hardware.gpu(name).id: price for name, price in given if name is not None}
    default = [price for name, price in given if name is None]
    return by_gpu, default[-1] if default else cost.PRICE


def _destination(plot: str | None) -> Path | None:
    if plot is None:
        return None
    from preflight.planning.chart import destination

    return destination(plot, "preflight-plan")


def _wrong(message: str) -> ConfigError:
    return ConfigError(Finding(id="command-line", severity="error", message=message))
