"""`preflight rule`: the 70 % rule on numbers given by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from preflight.cli.arguments import Parser, count, gib, gpu, known, threshold
from preflight.cli.output import write
from preflight.rule import THRESHOLD

SIZES: Mapping[str, str] = {
    "batch": "samples in a batch",
    "height": "height in points",
    "width": "width in points",
    "hidden_dim": "width of the hidden layers",
    "num_layers": "number of layers",
    "seq_len": "length of the sequence (default 1)",
}


def run(words: Sequence[str]) -> int:
    """0 where the rule is kept, 1 where it is broken."""
    parser = _parser()
    options = parser.parse(words)
    from preflight.rule import Rule, Shape, bytes_of, render

    known(parser, "gpu", options.gpu, gpu)
    capacity = bytes_of(options.gpu_memory) if options.gpu is None else Fraction(gpu(options.gpu))
    shape = Shape(**{name: getattr(options, name) for name in SIZES})
    asked = Rule(shape=shape, capacity_bytes=capacity, threshold=options.threshold or THRESHOLD)
    return write(render(asked), 0 if asked.passes else 1)


def _parser() -> Parser:
    parser = Parser(
        prog="preflight rule",
        description="batch x sequence x height x width x hidden x 4 bytes x layers must stay below 70 %% of the GPU.",
        allow_abbrev=False,
    )
    for name, meaning in SIZES.items():
        flags = dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}"))  # the underscore is the source's spelling
        default = 1 if name == "seq_len" else None
        parser.add_argument(*flags, type=count, default=default, required=default is None, metavar="N", help=meaning)
    card = parser.add_mutually_exclusive_group(required=True)
    card.add_argument("--gpu-memory", "--gpu_memory", type=gib, metavar="GIB", help="the GPU's memory")
    card.add_argument("--gpu", metavar="NAME", help="a GPU of the catalog, with the memory torch reports on it")
    parser.add_argument("--threshold", type=threshold, metavar="SHARE", help="share for activations (default 0.7)")
    return parser
