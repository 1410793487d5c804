"""`preflight explain ID`: what a finding means, and what mends it."""

from __future__ import annotations

from collections.abc import Sequence

from preflight.cli.arguments import Parser, sentence
from preflight.cli.output import write
from preflight.finding import ConfigError


def run(words: Sequence[str]) -> int:
    """0, or 2 for an id that no finding has."""
    parser = Parser(prog="preflight explain", description="Says what a finding means: what, why and fix.", allow_abbrev=False)
    parser.add_argument("id", metavar="ID", help="the word in brackets at the end of a finding")
    options = parser.parse(words)
    from preflight.explain import explanation

    try:
        return write(explanation(options.id.strip("[]")), 0)
    except ConfigError as problem:
        parser.error(sentence(problem))
