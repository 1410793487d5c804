"""argv to calls: the only module that prints, reads the environment or standard input, and chooses the exit status.

0: every config passes. 1: at least one does not fit, is invalid or cannot be judged. 2: the command line is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from preflight import __version__
from preflight.finding import ConfigError, Finding, did_you_mean
from preflight.reporters import FORMATS, Style, render
from preflight.rule import THRESHOLD
from preflight.settings import Settings, fallback_gpu, find, threshold

if TYPE_CHECKING:
    from preflight.editing.mend import Mended
    from preflight.report import Report, Result

LARGEST = 2**31 - 1  # torch's kernels index with 32-bit integers; a larger count is a slip of the keyboard
LARGEST_GIB = 2**20  # a pebibyte on one GPU, likewise
PROBLEMS_END = "see preflight --help"

# What a terminal without these characters is shown instead.
_ASCII = str.maketrans(
    {"·": "-", "█": "#", "▏": "|", "×": "x", "→": "->", "…": "...", "±": "+-", "–": "-", "≤": "<=", "≥": ">=", "÷": "/"}
)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status of `preflight` with these words; argparse itself exits with 2 on a wrong command line."""
    words = sys.argv[1:] if argv is None else list(argv)
    command = COMMANDS.get(words[0]) if words else None
    try:
        return command(words[1:]) if command else check(words)
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells report it
    except Exception as problem:  # noqa: BLE001  # the last resort: one sentence instead of a traceback
        print(_internal(" ".join(words), problem).message, file=sys.stderr)
        return 1


def check(words: Sequence[str]) -> int:
    """`preflight CONFIG...`: each config judged and written down; the worst decides."""
    parser = _check_parser()
    options = parser.parse(words)
    try:
        settings = find(Path.cwd())
    except ConfigError as problem:
        parser.error(_sentence(problem))
    for flag, lookup in LOOKUPS.items():
        _known(parser, flag, getattr(options, flag), lookup)
    from preflight.report import Report

    if options.choose is not None and not (options.diff or options.fix):
        parser.error("--choose takes an offer for --diff or --fix; give one of them")
    judge = Judge(options, settings)
    strict = options.strict or settings.strict
    report = Report(results=tuple(judge(path) for path in options.config))
    if options.diff or options.fix:
        return _mend(report, options, judge, strict=strict)
    status = report.exit_status(strict=strict)
    return _write(_rendered(report, options, strict=strict), status)


def rule(words: Sequence[str]) -> int:
    """`preflight rule`: the 70 % rule on numbers given by hand."""
    parser = _rule_parser()
    options = parser.parse(words)
    from preflight.rule import Rule, Shape, bytes_of, render

    _known(parser, "gpu", options.gpu, _gpu)
    capacity = bytes_of(options.gpu_memory) if options.gpu is None else Fraction(_gpu(options.gpu))
    shape = Shape(**{name: getattr(options, name) for name in SIZES})
    asked = Rule(shape=shape, capacity_bytes=capacity, threshold=options.threshold or THRESHOLD)
    return _write(render(asked), 0 if asked.passes else 1)


def planning(name: str, words: Sequence[str]) -> int:
    """`preflight plan` and `preflight compute`: budgets of compute (preflight/planning/NAME_command.py)."""
    from importlib import import_module

    command = import_module(f"preflight.planning.{name}_command")
    parser = Parser(prog=f"preflight {name}", allow_abbrev=False)
    command.add_arguments(parser)
    options = parser.parse(words)
    try:
        settings = find(Path.cwd())
        options.fallback_gpu = lambda: fallback_gpu(os.environ.get("PREFLIGHT_GPU"), settings)
        options.standard_input = _standard_input
        return _write(*command.run(options))
    except ConfigError as problem:
        parser.error(_sentence(problem))


def sweep(words: Sequence[str]) -> int:
    """`preflight sweep CONFIG --vary NAME=VALUES`: a grid of runs around a config."""
    from preflight.sweeping import command

    parser = Parser(prog="preflight sweep", allow_abbrev=False)
    command.add_arguments(parser)
    options = parser.parse(words)
    try:
        settings = find(Path.cwd())
        options.fallback_gpu = lambda: fallback_gpu(os.environ.get("PREFLIGHT_GPU"), settings)
        options.standard_input = _standard_input
        with _progress() as options.progress:
            text, status = command.run(options)
    except ConfigError as problem:
        parser.error(_sentence(problem))
    return _write(text, status)


def explain(words: Sequence[str]) -> int:
    """`preflight explain ID`: what a finding means, and what mends it."""
    parser = Parser(prog="preflight explain", description="Says what a finding means: what, why and fix.", allow_abbrev=False)
    parser.add_argument("id", metavar="ID", help="the word in brackets at the end of a finding")
    options = parser.parse(words)
    from preflight.explain import explanation

    try:
        return _write(explanation(options.id.strip("[]")), 0)
    except ConfigError as problem:
        parser.error(_sentence(problem))


def show(words: Sequence[str]) -> int:
    """`preflight list WHAT`: the checks, GPUs, models or adapters that there are."""
    from preflight.listing import LISTS
    from preflight.listing import render as written

    parser = Parser(prog="preflight list", description="Shows what there is.", allow_abbrev=False)
    parser.add_argument("what", choices=tuple(LISTS), metavar="WHAT", help=", ".join(LISTS))
    parser.add_argument("-v", "--verbose", action="store_true", help="all that is known of each")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="text (default) or json")
    options = parser.parse(words)
    return _write(written(options.what, verbose=options.verbose, form=options.format), 0)


COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "check": check,
    "rule": rule,
    "explain": explain,
    "list": show,
    "plan": partial(planning, "plan"),
    "compute": partial(planning, "compute"),
    "sweep": sweep,
}
SIZES: Mapping[str, str] = {
    "batch": "samples in a batch",
    "height": "height in points",
    "width": "width in points",
    "hidden_dim": "width of the hidden layers",
    "num_layers": "number of layers",
    "seq_len": "length of the sequence (default 1)",
}


class Parser(argparse.ArgumentParser):
    """argparse with one sentence per error, and a guess at what a mistyped flag was meant to be."""

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """The options in `words`; flags and configs may come in any order. Exits with 2 on anything unknown."""
        options, unknown = self.parse_known_intermixed_args(words)
        if unknown:
            near = did_you_mean(unknown[0].split("=")[0], tuple(self._option_string_actions))
            self.error(f"{unknown[0]} is not an option{f'; did you mean {near}?' if near else ''}")
        return options

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"preflight: {message} ({PROBLEMS_END})\n")


def _check_parser() -> Parser:
    parser = Parser(
        prog="preflight",
        description="Says before a launch whether a training config fits its GPUs, and what to change if it does not.",
        epilog="preflight explain ID: what a finding means. preflight list: what there is. preflight rule --help: the 70 %% rule by"
        " hand. A config named like a command is given as ./rule.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("config", nargs="+", metavar="CONFIG", help="a training config (YAML or JSON); - is standard input")
    add("--adapter", metavar="NAME", help="the trainer whose config this is (default: seen from its keys)")
    add("--set", action="append", default=[], type=_override, metavar="KEY=VALUE", help="change a key of the config")
    add("--gpu", metavar="NAME", help="judge for this GPU, whatever the config names")
    add("--gpu-memory", type=_gib, metavar="GIB", help="judge for a GPU on which torch reports this much memory")
    add("--threshold", type=_threshold, metavar="SHARE", help="largest share for activations (default 0.7)")
    add("--format", choices=tuple(FORMATS), default="text", help="text (default) or json")
    add("-q", "--quiet", action="store_true", help="print only what failed")
    add("-v", "--verbose", action="store_true", help="print every assumption and finding")
    add("--strict", action="store_true", help="warnings fail, too")
    add("--grow", action="store_true", help="when it fits: the largest batch, resolution and frames that still do")
    written = parser.add_mutually_exclusive_group()
    written.add_argument("--diff", action="store_true", help="print the best offer as a change of the file")
    written.add_argument("--fix", action="store_true", help="write the best offer into the file")
    add("--choose", type=_count, metavar="N", help="take offer N instead of the best (with --diff or --fix)")
    add("--version", action="version", version=f"preflight {__version__}")
    return parser


def _rule_parser() -> Parser:
    parser = Parser(
        prog="preflight rule",
        description="batch x sequence x height x width x hidden x 4 bytes x layers must stay below 70 %% of the GPU.",
        allow_abbrev=False,
    )
    for name, meaning in SIZES.items():
        flags = dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}"))  # the underscore is the source's spelling
        default = 1 if name == "seq_len" else None
        parser.add_argument(*flags, type=_count, default=default, required=default is None, metavar="N", help=meaning)
    gpu = parser.add_mutually_exclusive_group(required=True)
    gpu.add_argument("--gpu-memory", "--gpu_memory", type=_gib, metavar="GIB", help="the GPU's memory")
    gpu.add_argument("--gpu", metavar="NAME", help="a GPU of the catalog, with the memory torch reports on it")
    parser.add_argument("--threshold", type=_threshold, metavar="SHARE", help="share for activations (default 0.7)")
    return parser


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= LARGEST:
        raise argparse.ArgumentTypeError(f"{_short(text)} is not a whole number from 1 to {LARGEST:,}")
    return number


def _gib(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= LARGEST_GIB:  # NaN compares false, so it ends here too
        raise argparse.ArgumentTypeError(f"{_short(text)} is not a GPU's memory in GiB, such as 24")
    return number


def _threshold(text: str) -> float:
    try:
        return threshold(text)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None


def _override(text: str) -> str:
    if not text.partition("=")[0].strip() or "=" not in text:
        raise argparse.ArgumentTypeError(f"{_short(text)} is not key=value, such as train.batch=4")
    return text


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")


def _gpu(name: str) -> int:
    """The bytes torch reports on the GPU `name`; raises ConfigError when the catalog has none."""
    from preflight import catalog

    return catalog.gpu(name).memory_bytes


def _adapter(name: str) -> object:
    from preflight.adapters import by_name

    return by_name(name)


LOOKUPS: Mapping[str, Callable[[str], object]] = {"gpu": _gpu, "adapter": _adapter}


def _known(parser: Parser, flag: str, name: str | None, lookup: Callable[[str], object]) -> None:
    """Exits with 2 when the flag names what does not exist."""
    try:
        _ = name is not None and lookup(name)
    except ConfigError as problem:
        parser.error(f"argument --{flag}: {_sentence(problem)}")


def _sentence(problem: ConfigError) -> str:
    finding = problem.findings[0]
    hint = finding.fix if "did you mean" not in finding.message else None
    return "; ".join(part.rstrip(".") for part in (finding.message, hint) if part)


class Judge:
    """One config, or its text, to its Result, whatever happens: one bad file never hides the other nine."""

    def __init__(self, options: argparse.Namespace, settings: Settings) -> None:
        self.options, self.settings = options, settings
        self.fallback = cache(lambda: fallback_gpu(os.environ.get("PREFLIGHT_GPU"), settings))
        self.standard_input = cache(_standard_input)

    def __call__(self, path: str, text: str | None = None) -> Result:
        from preflight.report import Result

        options, settings = self.options, self.settings
        try:
            from preflight.pipeline import inspect

            return inspect(
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
            return Result(config=path, findings=problem.findings)
        except Exception as problem:  # noqa: BLE001  # whatever it is, the config fails and the others are judged
            return Result(config=path, findings=(_internal(path, problem),))


def _mend(report: Report, options: argparse.Namespace, judge: Judge, *, strict: bool) -> int:
    """`--diff` prints the offers as changes of the files, `--fix` writes them and reports on what the files are then."""
    from preflight.report import Report

    results, diffs, refused = [], [], False
    for result in report.results:
        try:
            made = _mended(result, options, judge)
        except ConfigError as problem:
            print(f"preflight: {_sentence(problem)}", file=sys.stderr)
            made, refused = None, True
        results.append(made.result if made is not None and options.fix else result)
        diffs.append(made.diff() if made is not None else "")
    after = Report(results=tuple(results))
    status = max(after.exit_status(strict=strict), int(refused))
    return _write(_rendered(after, options, strict=strict) if options.fix else "".join(diffs), status)


def _mended(result: Result, options: argparse.Namespace, judge: Judge) -> Mended | None:
    """The config with an offer in it, written under `--fix`; None when there is none. Raises ConfigError when it is not edited."""
    from preflight.editing.mend import mended

    path = result.config
    if not result.reductions and options.choose is None:
        why = "passes as it is" if result.passes() else "has no offer"
        print(f"preflight: {path} {why}; nothing is changed", file=sys.stderr)
        return None
    made = mended(
        result,
        options.choose or 1,
        partial(judge, path),
        overrides=options.set,
        text=judge.standard_input() if path == "-" else None,
        tree=_tree() if options.fix else None,
    )
    if options.fix:
        made.write()
        print(f"preflight: {path} now has {made.offer.summary}", file=sys.stderr)
    return made


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """What shows how many of so many points are done: a bar on a terminal, else nothing."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda done, total: None  # noqa: ARG005
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("points", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _tree() -> Path:
    """The repository around the working directory, else that directory."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), here)


def _internal(what: str, problem: Exception) -> Finding:
    if os.environ.get("PREFLIGHT_DEBUG") == "1":
        import traceback

        traceback.print_exception(problem)
    message = f"preflight could not judge {what}: internal error: {type(problem).__name__}: {problem}; please report"
    return Finding(id="internal-error", severity="error", message=message)


def _standard_input() -> str:
    """All of standard input as text; raises ConfigError when it is not UTF-8."""
    if sys.stdin is None:
        return ""
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        message = f"standard input is not UTF-8 text (byte {problem.start + 1}), expected a training config"
        raise ConfigError(Finding(id="unreadable", severity="error", message=message)) from None


def _rendered(report: Report, options: argparse.Namespace, *, strict: bool) -> str:
    import shutil

    from preflight.memory.overhead import TOLERANCE

    terminal = sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    style = Style(
        colour=terminal and not os.environ.get("NO_COLOR"),
        width=shutil.get_terminal_size().columns if terminal else 80,
        quiet=options.quiet,
        verbose=options.verbose,
        strict=strict,
        tolerance=TOLERANCE,
    )
    return render(report, options.format, style)


def _write(text: str, status: int) -> int:
    """`text` on standard output in characters it can show; a reader who has left early changes nothing."""
    if sys.stdout is None:
        return status
    encoding = sys.stdout.encoding or "ascii"
    try:
        "·█×→…".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        text = text.translate(_ASCII)
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
    return status
