"""`preflight compute`: its arguments, and what it answers."""

from __future__ import annotations

import argparse
from dataclasses import replace

from preflight.finding import ConfigError, Finding
from preflight.planning import demand, inference, training
from preflight.planning.compute import LANGUAGE_MODELS, TFLOPS, Assumptions, Compute
from preflight.planning.numbers import listed, named, positive, share, whole

DESCRIPTION = """\
How much compute a large video model takes to train, scaled up from a small model whose compute is known; how much it takes to
make a minute of video; after how many minutes inference has cost more than training; and how many GPUs serve a platform at its
peak. The defaults are a published estimate of OpenAI's Sora from DiT (M. Plappert, Factorial Funds, 2024); change any of them.
"""
EPILOG = """\
examples:
  preflight compute
  preflight compute --model-scale 20.7 --data-scale 5 --sampling-steps 50 --gpu h200-141gb
  preflight compute --platform 'Shorts=30e6:0.2' --plot crossover.svg
"""
HUGE = 1e30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every factor is an option."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    factor, operations = positive("a factor", 1e9), positive("a number of operations", HUGE)
    train = parser.add_argument_group("training").add_argument
    train("--reference-flop", type=operations, default=training.REFERENCE_FLOP, metavar="FLOP", help="of the small model (1e21)")
    train("--model-scale", type=factor, default=training.MODEL_SCALE, metavar="X", help="parameters over the small model's (30)")
    help_ = "data over the small model's, low and high (4,10)"
    train("--data-scale", type=listed(factor), default=training.DATA_SCALE, metavar="LOW,HIGH", help=help_)
    train(
        "--video-share",
        type=share("a share"),
        default=training.VIDEO_SHARE,
        metavar="SHARE",
        help="of the data that is video (0.5)",
    )
    train("--training-utilisation", type=share("a share"), default=1.0, metavar="SHARE", help="of the GPUs' peak (1)")
    train("--month-days", type=positive("days of a month", 366), default=training.MONTH_DAYS, metavar="N", help="days a month (30)")
    clip = parser.add_argument_group("clip").add_argument
    clip("--seconds", type=positive("a number of seconds", 1e6), default=60.0, metavar="S", help="of a clip (60)")
    clip("--fps", type=positive("frames a second", 1e4), default=24.0, metavar="N", help="frames a second (24)")
    clip("--compression", type=positive("a compression", 1e4), default=8.0, metavar="X", help="frames per latent frame (8)")
    make = parser.add_argument_group("inference").add_argument
    make("--step-flop", type=operations, default=inference.STEP_FLOP, metavar="FLOP", help="of one step of the small model (524e9)")
    steps = whole("a number of steps", 10**6)
    make("--sampling-steps", type=steps, default=inference.SAMPLING_STEPS, metavar="N", help="diffusion steps a sample (250)")
    help_ = "significant digits a minute's compute is carried with (3; 15 for all)"
    make("--digits", type=whole("a number of digits", 15), default=inference.DIGITS, metavar="N", help=help_)
    gpus = parser.add_argument_group("GPUs").add_mutually_exclusive_group().add_argument
    gpus("--gpu", metavar="NAME", help="a GPU of the catalog, with its peak speed there")
    gpus("--tflops", type=positive("a speed in TFLOP/s", 1e9), metavar="N", help=f"its peak speed ({TFLOPS:g}, an H100)")
    want = parser.add_argument_group("demand").add_argument
    help_ = "minutes uploaded a day and the share that is generated (TikTok=17e6:0.5 and YouTube=43e6:0.15; may be repeated)"
    want("--platform", action="append", type=named(_platform, "TikTok=17e6:0.5"), metavar="NAME=MINUTES[:SHARE]", help=help_)
    images = positive("a number of images", 1e15)
    want("--images-a-day", type=images, default=demand.IMAGES_A_DAY, metavar="N", help="uploaded, for the small model (95e6)")
    want("--candidates", type=factor, default=demand.CANDIDATES, metavar="N", help="made for each result that is kept (2)")
    want("--utilisation", type=share("a share"), default=demand.UTILISATION, metavar="SHARE", help="of the GPUs' peak (0.5)")
    help_ = f"the busiest hour over the average ({demand.PEAK_FACTOR:g})"
    want("--peak-factor", type=factor, default=demand.PEAK_FACTOR, metavar="X", help=help_)
    other = parser.add_argument_group("comparison").add_argument
    other("--tokens", type=whole("a number of tokens", 10**12), default=1000, metavar="N", help="of a document (1,000)")
    help_ = "a language model's active parameters (Llama 2 70B and GPT-4; may be repeated)"
    model = named(positive("a number of parameters", 1e18), "Mistral=7e9")
    other("--language-model", action="append", type=model, metavar="NAME=N", help=help_)
    parser.add_argument("--plot", metavar="svg|png|FILE", help="draw where inference overtakes training (needs the plot extra)")
    parser.add_argument("--json", action="store_true", help="for programs: one JSON document")
    parser.add_argument("-v", "--verbose", action="store_true", help="print every factor with its source")


def run(options: argparse.Namespace) -> tuple[str, int]:
    """The answer and the exit status 0. Raises ConfigError for a wrong command line."""
    from preflight.planning import compute_report

    bounds = options.data_scale
    if len(bounds) > 2 or list(bounds) != sorted(bounds):
        raise _wrong("argument --data-scale: one factor, or the low and the high one with a comma between them")
    taken = Assumptions(
        reference_flop=options.reference_flop,
        model_scale=options.model_scale,
        data_scale=bounds,
        video_share=options.video_share,
        seconds=options.seconds,
        fps=options.fps,
        compression=options.compression,
        training_utilisation=options.training_utilisation,
        month_days=options.month_days,
        step_flop=options.step_flop,
        sampling_steps=options.sampling_steps,
        digits=options.digits,
        platforms=tuple(replace(platform, name=name) for name, platform in options.platform or ()) or demand.PLATFORMS,
        images_a_day=options.images_a_day,
        candidates=options.candidates,
        utilisation=options.utilisation,
        peak_factor=options.peak_factor,
        tokens=options.tokens,
        language_models=dict(options.language_model) if options.language_model else LANGUAGE_MODELS,
    )
    found = Compute(taken=_on_gpu(taken, options.gpu, options.tflops))
    text = compute_report.json(found) if options.json else compute_report.text(found, verbose=options.verbose)
    if options.plot is not None:
        from preflight.planning import chart, compute_chart

        destination = chart.destination(options.plot, "preflight-compute")
        compute_chart.draw(found, destination)
        text += "" if options.json else f"\nchart written to {destination}\n"
    return text, 0


def _on_gpu(taken: Assumptions, name: str | None, tflops: float | None) -> Assumptions:
    if name is not None:
        from preflight.planning import hardware

        card = hardware.gpu(name)
        return replace(taken, gpu=card.id, tflops=card.tflops)
    return taken if tflops is None else replace(taken, gpu="GPU", tflops=tflops)


def _platform(text: str) -> demand.Platform:
    minutes, sign, part = text.partition(":")
    count = positive("a number of minutes a day", 1e15)(minutes)
    return demand.Platform(name="", minutes_a_day=count, share=share("a share")(part) if sign else 1.0)


def _wrong(message: str) -> ConfigError:
    return ConfigError(Finding(id="command-line", severity="error", message=message))
