"""Words of a command line as options, and what is wrong with them in one sentence."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from preflight.finding import ConfigError, did_you_mean
from preflight.settings import threshold as share

LARGEST = 2**31 - 1  # torch's kernels index with 32-bit integers; a larger count is a slip of the keyboard
LARGEST_GIB = 2**20  # a pebibyte on one GPU, likewise
PROBLEMS_END = "see preflight --help"


class Parser(argparse.ArgumentParser):
    """argparse with one sentence per error, and a guess at what a mistyped flag was meant to be."""

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """The options in `words`; flags and configs may come in any order. Exits with 2 on anything unknown."""
        options, unknown = self.parse_known_intermixed_args(list(_settings(words)))
        if unknown:
            near = did_you_mean(unknown[0].split("=")[0], tuple(self._option_string_actions))
            self.error(f"{unknown[0]} is not an option{f'; did you mean {near}?' if near else ''}")
        return options

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"preflight: {message} ({PROBLEMS_END})\n")


def _settings(words: Sequence[str]) -> Iterator[str]:
    """The words, with `--set --rank=8` as one of them: a trainer's flag may be set by its own name."""
    waiting = False
    for word in words:
        if waiting:
            yield from (f"--set={word}",) if word.startswith("--") and "=" in word else ("--set", word)
        elif word != "--set":
            yield word
        waiting = word == "--set" and not waiting
    if waiting:
        yield "--set"


def count(text: str) -> int:
    """A whole number of things."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= LARGEST:
        raise argparse.ArgumentTypeError(f"{_short(text)} is not a whole number from 1 to {LARGEST:,}")
    return number


def gib(text: str) -> float:
    """A GPU's memory."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= LARGEST_GIB:  # NaN compares false, so it ends here too
        raise argparse.ArgumentTypeError(f"{_short(text)} is not a GPU's memory in GiB, such as 24")
    return number


def threshold(text: str) -> float:
    """The share of a GPU that activations may take."""
    try:
        return share(text)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None


def override(text: str) -> str:
    """key=value."""
    if not text.partition("=")[0].strip() or "=" not in text:
        raise argparse.ArgumentTypeError(f"{_short(text)} is not key=value, such as train.batch=4")
    return text


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")


def gpu(name: str) -> int:
    """The bytes torch reports on the GPU `name`; raises ConfigError when the catalog has none."""
    from preflight import catalog

    return catalog.gpu(name).memory_bytes


def known(parser: Parser, flag: str, name: str | None, lookup: Callable[[str], object]) -> None:
    """Exits with 2 when the flag names what does not exist."""
    try:
        _ = name is not None and lookup(name)
    except ConfigError as problem:
        parser.error(f"argument --{flag}: {sentence(problem)}")


def sentence(problem: ConfigError) -> str:
    """The first finding of `problem` and what mends it."""
    finding = problem.findings[0]
    hint = finding.fix if "did you mean" not in finding.message else None
    return "; ".join(part.rstrip(".") for part in (finding.message, hint) if part)
