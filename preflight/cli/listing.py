"""`preflight list WHAT`: the checks, GPUs, models or adapters that there are."""

from __future__ import annotations

from collections.abc import Sequence

from preflight.cli.arguments import Parser
from preflight.cli.output import write


def run(words: Sequence[str]) -> int:
    """0."""
    from preflight.listing import LISTS, render

    parser = Parser(prog="preflight list", description="Shows what there is.", allow_abbrev=False)
    parser.add_argument("what", choices=tuple(LISTS), metavar="WHAT", help=", ".join(LISTS))
    parser.add_argument("-v", "--verbose", action="store_true", help="all that is known of each")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="text (default) or json")
    options = parser.parse(words)
    return write(render(options.what, verbose=options.verbose, form=options.format), 0)
