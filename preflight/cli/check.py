"""`preflight CONFIG...`: each config judged and written down; the worst decides."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from preflight import __version__
from preflight.cli import output
from preflight.cli.arguments import Parser, count, gib, gpu, known, override, sentence, threshold
from preflight.finding import ConfigError
from preflight.reporters import FORMATS, render
from preflight.rule import THRESHOLD
from preflight.settings import Settings, fallback_gpu, find

if TYPE_CHECKING:
    from preflight.report import Report, Result


def run(words: Sequence[str]) -> int:
    """The exit status of `preflight` with these words."""
    parser = _parser()
    options = parser.parse(words)
    try:
        settings = find(Path.cwd())
    except ConfigError as problem:
        parser.error(sentence(problem))
    for flag, lookup in LOOKUPS.items():
        known(parser, flag, getattr(options, flag), lookup)
    from preflight.report import Report

    if options.choose is not None and not (options.diff or options.fix):
        parser.error("--choose takes an offer for --diff or --fix; give one of them")
    judge = Judge(options, settings)
    strict = options.strict or settings.strict
    results = tuple(result for path in options.config for result in judge.all(path))
    if options.training_only:
        for other in (result.config for result in results if not result.trains):
            output.say(f"{other} is no training config, so it is passed over")
        results = tuple(result for result in results if result.trains)
    report = Report(results=results)
    if options.diff or options.fix:
        from preflight.cli.mend import mend

        return mend(report, options, judge, strict=strict)
    return output.write(rendered(report, options, strict=strict), report.exit_status(strict=strict))


def rendered(report: Report, options: argparse.Namespace, *, strict: bool) -> str:
    """`report` in the format that was asked for."""
    return render(report, options.format, output.style(quiet=options.quiet, verbose=options.verbose, strict=strict))


def _adapter(name: str) -> object:
    from preflight.adapters import by_name

    return by_name(name)


LOOKUPS: Mapping[str, Callable[[str], object]] = {"gpu": gpu, "adapter": _adapter}


class Judge:
    """One config, or its text, to its results, whatever happens: one bad file never hides the other nine."""

    def __init__(self, options: argparse.Namespace, settings: Settings) -> None:
        self.options, self.settings = options, settings
        self.fallback = cache(lambda: fallback_gpu(output.gpu_of_the_environment(), settings))
        self.standard_input = cache(output.standard_input)

    def __call__(self, path: str, text: str | None = None) -> Result:
        """The result of a config that is one run."""
        return self.all(path, text)[0]

    def all(self, path: str, text: str | None = None) -> tuple[Result, ...]:
        """A result for each run: a launch script may start several."""
        from preflight.report import Result

        options, settings = self.options, self.settings
        try:
            from preflight.pipeline import inspect_all

            return inspect_all(
                path,
                adapter=options.adapter,
                overrides=options.set,
                text=self.standard_input() if path == "-" and text is None else text,
                gpu=options.gpu,
                gpu_memory_gib=options.gpu_memory,
                fallback_gpu=self.fallback,
                threshold=options.threshold or settings.threshold or THRESHOLD,
                ignore=settings.ignored(path),
                grow=options.grow,
            )
        except ConfigError as problem:
            return (Result(config=path, findings=problem.findings),)
        except Exception as problem:  # noqa: BLE001  # whatever it is, the config fails and the others are judged
            return (Result(config=path, findings=(output.internal(path, problem),)),)


def _parser() -> Parser:
    parser = Parser(
        prog="preflight",
        description="Says before a launch whether a training config fits its GPUs, and what to change if it does not.",
        epilog="preflight explain ID: what a finding means. preflight list: what there is. preflight rule --help: the 70 %% rule by"
        " hand. A config named like a command is given as ./rule.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    help_ = (
        "a training config (YAML, TOML, JSON) or launch script (train.sh, or one launch of it, train.sh:40); - is standard input"
    )
    add("config", nargs="+", metavar="CONFIG", help=help_)
    add("--adapter", metavar="NAME", help="the trainer whose config this is (default: seen from its keys)")
    add("--set", action="append", default=[], type=override, metavar="KEY=VALUE", help="change a key of the config")
    add("--gpu", metavar="NAME", help="judge for this GPU, whatever the config names")
    add("--gpu-memory", type=gib, metavar="GIB", help="judge for a GPU on which torch reports this much memory")
    add("--threshold", type=threshold, metavar="SHARE", help="largest share for activations (default 0.7)")
    add("--format", choices=tuple(FORMATS), default="text", help="text (default) or json")
    add("-q", "--quiet", action="store_true", help="print only what failed")
    add("-v", "--verbose", action="store_true", help="print every assumption and finding")
    add("--strict", action="store_true", help="warnings fail, too")
    help_ = "pass over files that are known to be no training config, such as a data set's or DeepSpeed's"
    add("--training-only", action="store_true", help=help_)
    add("--grow", action="store_true", help="when it fits: the largest batch, resolution and frames that still do")
    written = parser.add_mutually_exclusive_group()
    written.add_argument("--diff", action="store_true", help="print the best offer as a change of the file")
    written.add_argument("--fix", action="store_true", help="write the best offer into the file")
    add("--choose", type=count, metavar="N", help="take offer N instead of the best (with --diff or --fix)")
    add("--version", action="version", version=f"preflight {__version__}")
    return parser
