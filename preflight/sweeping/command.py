"""`preflight sweep`: its arguments, and from them the page to print."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from preflight.finding import ConfigError, Finding
from preflight.rule import THRESHOLD
from preflight.sweeping.axes import CHANGES, NAMED, SHAPES, axis, check, wrong

if TYPE_CHECKING:
    from preflight.catalog import Gpu
    from preflight.spec import Spec

DESCRIPTION = "Judges a config with every combination of the values given, on every GPU given."
EXAMPLES = f"""names: {", ".join((*SHAPES, *CHANGES))}; resolutions: WIDTHxHEIGHT or {", ".join(NAMED)}

examples:
  preflight sweep configs/train_a100.yaml --vary frames=17..81:4 --vary resolution=480p,720p --gpu a100-40gb,a100-80gb
  preflight sweep configs/fno_ocean.yaml --vary batch=1..512 --format csv > sweep.csv
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("config", metavar="CONFIG", help="a training config; - is standard input")
    add("--vary", action="append", default=[], metavar="NAME=VALUES", help="batch=1,2,4 or frames=17..81:4; may be repeated")
    add("--gpu", metavar="NAME,...", help="one or several GPUs (default: the config's)")
    add("--adapter", metavar="NAME", help="the trainer whose config this is (default: seen from its keys)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the config")
    add("--threshold", type=float, default=THRESHOLD, metavar="SHARE", help="largest share for activations (default 0.7)")
    add("--format", choices=("text", "json", "csv"), default="text", help="text (default), json or csv")
    add("--plot", metavar="svg|png|FILE", help="draw the peak over the two axes that are varied (needs the plot extra)")


def run(options: argparse.Namespace) -> tuple[str, int]:
    """What to print and the exit status. Raises ConfigError: the command line, or the config."""
    from preflight.sweeping.grid import sweep
    from preflight.sweeping.report import FORMATS

    if not options.vary:
        raise wrong("argument --vary: nothing is varied; give NAME=VALUES, such as batch=1,2,4")
    if not 0 < options.threshold <= 1:
        raise wrong(f"argument --threshold: {options.threshold:g} is not a share above 0 and at most 1, such as 0.7")
    axes = [axis(text) for text in options.vary]
    spec = _spec(options)
    gpus = _gpus(options, spec)
    check(axes, len(gpus))
    path = None
    if options.plot is not None:
        from preflight.planning.chart import destination

        path = destination(options.plot, "preflight-sweep")
    found = sweep(spec, gpus, axes, options.threshold, options.progress)
    header = f"{options.config} · {spec.model.name} · {', '.join(a.name for a in found.axes)} varied"
    if path is not None:
        from preflight.sweeping.plot import draw

        draw(found, header, path)
    return FORMATS[options.format](found, header), 0


def _spec(options: argparse.Namespace) -> Spec:
    from preflight import adapters, document, schema
    from preflight.spec import Spec

    given = options.standard_input() if options.config == "-" else None
    config = document.read(options.config, overrides=options.set, text=given)
    chosen = adapters.by_name(options.adapter) if options.adapter else adapters.detect(config)
    reading = chosen.read(config)
    refused = schema.findings(schema.check(reading.spec, "spec"), config, reading.origins)
    errors = [finding for finding in (*reading.findings, *refused) if finding.severity == "error"]
    if errors:
        raise ConfigError(*(_at(options.config, error) for error in errors))
    return Spec.from_mapping(reading.spec)


def _at(path: str, finding: Finding) -> Finding:
    place = ":".join(str(part) for part in (path, finding.line, finding.column) if part is not None)
    return replace(finding, message=f"{place}: {finding.message}")


def _gpus(options: argparse.Namespace, spec: Spec) -> tuple[Gpu, ...]:
    from preflight import catalog

    named = [name.strip() for name in (options.gpu or "").split(",") if name.strip()]
    if not named:
        fallback = spec.hardware.gpu or options.fallback_gpu()
        if fallback is None:
            raise wrong("argument --gpu: no GPU is named; give one or several of the catalog, such as a100-40gb,rtx4090-24gb")
        named = [fallback]
    return tuple({card.id: card for card in map(catalog.gpu, named)}.values())
