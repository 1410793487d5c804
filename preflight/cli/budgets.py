"""What `preflight plan`, `compute` and `sweep` have in common: their arguments, and the world around them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from preflight.cli import output
from preflight.cli.arguments import Parser, sentence
from preflight.finding import ConfigError
from preflight.settings import fallback_gpu, find


def answer(name: str, command: ModuleType, words: Sequence[str], call: Callable[[argparse.Namespace], tuple[str, int]]) -> int:
    """Runs `call` on the options of `command`, and writes what it answers; exits with 2 on a wrong command line."""
    parser = Parser(prog=f"preflight {name}", allow_abbrev=False)
    command.add_arguments(parser)
    options = parser.parse(words)
    try:
        settings = find(Path.cwd())
        options.fallback_gpu = lambda: fallback_gpu(output.gpu_of_the_environment(), settings)
        options.standard_input = output.standard_input
        text, status = call(options)
    except ConfigError as problem:
        parser.error(sentence(problem))
    return output.write(text, status)
