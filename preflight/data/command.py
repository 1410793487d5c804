"""`preflight data`: its arguments, and from them the page to print."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from preflight.data.problem import wrong
from preflight.data.readers import ENDINGS, index
from preflight.data.statistics import Wanted

DESCRIPTION = "Reads the index of a data set, or those that a config names, and prints what the samples are. No media is opened."
EXAMPLES = """examples:
  preflight data configs/train_v100.yaml
  preflight data train.csv --validation val.csv --size 1280x720 --frames 49 --fps 16 --tokens 256 --plot data.svg
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    kinds = ", ".join(sorted(dict.fromkeys(ENDINGS)))
    add("path", metavar="CONFIG_OR_INDEX", help=f"a training config (- is standard input), an index ({kinds}) or a folder with one")
    add("--validation", metavar="INDEX", help="the validation set, where the config names none or an index is given")
    add("--size", metavar="WxH", help="the training size in pixels (default: the config's)")
    add("--frames", type=int, metavar="N", help="frames a clip (default: the config's)")
    add("--fps", type=float, metavar="N", help="frames a second that the trainer takes of a clip (default: all it has)")
    add("--tokens", type=int, metavar="N", help="tokens of a caption that are read (default: the config's)")
    add("--adapter", metavar="NAME", help="the trainer whose config this is (default: seen from its keys)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the config")
    add("--format", choices=("text", "json"), default="text", help="text (default) or json")
    add("--plot", metavar="svg|png|FILE", help="draw sizes, durations, categories and captions (needs the plot extra)")


def run(options: argparse.Namespace) -> tuple[str, int]:
    """What to print and the exit status. Raises ConfigError: the command line, the config, or an index."""
    from preflight.data.report import FORMATS
    from preflight.data.split import Sets, split

    asked = _asked(options)
    path = None
    if options.plot is not None:
        from preflight.planning.chart import destination

        path = destination(options.plot, "preflight-data")
    named, wanted = _from_index(options.path, asked) if _is_index(options.path) else _from_config(options, asked)
    if options.validation is not None:
        named = {"train": named.get("train") or named["index"], "validation": options.validation}
    there = {name: place for name, place in named.items() if place == options.validation or Path(place).expanduser().exists()}
    there = there or named  # where nothing is here, the first says so
    found = tuple(
        split(name, place, wanted, _part(options.progress, n, len(there))) for n, (name, place) in enumerate(there.items())
    )
    sets = Sets(
        splits=found,
        wanted=wanted,
        overlap=found[1].statistics.marks.shared(found[0].statistics.marks) if len(found) > 1 else None,
        absent={name: place for name, place in named.items() if name not in there},
    )
    if path is not None:
        from preflight.data.plot import draw

        draw(found, wanted, path)
    return FORMATS[options.format](sets), 0


def _part(progress: Callable[[int, int], None], number: int, parts: int) -> Callable[[int, int], None]:
    """The progress of one index of several, each of which counts the same."""
    return lambda done, total: progress(1000 * number + 1000 * done // max(total, 1), 1000 * parts)


def _asked(options: argparse.Namespace) -> Wanted:
    """What the command line says of the samples wanted."""
    for name in ("frames", "fps", "tokens"):
        value = getattr(options, name)
        if value is not None and not 0 < value < 1e9:
            raise wrong(f"argument --{name}: {value:g} is not a number above 0")
    width, height = None, None
    if options.size is not None:
        sides = options.size.lower().replace("*", "x").replace("×", "x").split("x")
        if len(sides) != 2 or not all(side.isdecimal() and 0 < int(side) < 1e6 for side in sides):
            raise wrong(f"argument --size: {options.size!r} is not WIDTHxHEIGHT, such as 1280x720")
        width, height = map(int, sides)
    return Wanted(width=width, height=height, frames=options.frames, fps=options.fps, tokens=options.tokens)


def _is_index(path: str) -> bool:
    """Whether `path` is an index itself: by its ending, and a .json by its beginning with a list or with several objects."""
    place = Path(path)
    if path == "-" or (place.suffix.lower() not in ENDINGS and not place.is_dir()):
        return False
    found = index(path)
    if place.suffix.lower() != ".json" or found is None:
        return True
    from preflight.data.readers.json import is_list

    return is_list(found)


def _from_index(path: str, asked: Wanted) -> tuple[dict[str, str], Wanted]:
    return {"index": path}, asked


def _from_config(options: argparse.Namespace, asked: Wanted) -> tuple[dict[str, str], Wanted]:
    """The indexes that the config names, and what it wants of their samples where the command line does not say."""
    from preflight import adapters, document, schema
    from preflight.finding import ConfigError
    from preflight.spec import Spec

    given = options.standard_input() if options.path == "-" else None
    config = document.read(options.path, overrides=options.set, text=given)
    chosen = adapters.by_name(options.adapter) if options.adapter else adapters.detect(config)
    reading = chosen.read(config)
    refused = schema.findings(schema.check(reading.spec, "spec"), config, reading.origins)
    errors = [finding for finding in (*reading.findings, *refused) if finding.severity == "error"]
    if errors:
        raise ConfigError(*errors)
    spec = Spec.from_mapping(reading.spec)
    named = {"train": spec.paths.train, "validation": spec.paths.validation}
    there = {name: place for name, place in named.items() if place is not None}
    if not there:
        raise wrong(f"{options.path} names no index of a data set; give the index itself")
    wanted = Wanted(
        width=asked.width or spec.data.width,
        height=asked.height or spec.data.height,
        frames=asked.frames or spec.data.frames,
        fps=asked.fps or spec.data.fps,
        tokens=asked.tokens or spec.data.text_tokens,
    )
    return there, wanted
