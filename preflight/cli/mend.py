"""`--diff` prints the offers as changes of the files, `--fix` writes them and reports on what the files are then."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preflight.cli import output
from preflight.cli.arguments import sentence
from preflight.cli.check import Judge, rendered
from preflight.finding import ConfigError, Finding
from preflight.report import Report, Result

if TYPE_CHECKING:
    from preflight.document import Document
    from preflight.editing.mend import Mended


def mend(report: Report, options: argparse.Namespace, judge: Judge, *, strict: bool) -> int:
    """The exit status, after all is printed and written."""
    results, diffs, refused = [], [], False
    for result in report.results:
        try:
            made = _mended(result, options, judge)
        except ConfigError as problem:
            output.say(sentence(problem))
            made, refused = None, True
        results.append(made.result if made is not None and options.fix else result)
        diffs.append(made.diff() if made is not None else "")
    after = Report(results=tuple(results))
    status = max(after.exit_status(strict=strict), int(refused))
    return output.write(rendered(after, options, strict=strict) if options.fix else "".join(diffs), status)


def _mended(result: Result, options: argparse.Namespace, judge: Judge) -> Mended | None:
    """The config with an offer in it, written under `--fix`; None when there is none. Raises ConfigError when it is not edited."""
    from preflight.editing.mend import mended

    path = result.config
    if not result.reductions and options.choose is None:
        output.say(f"{path} {'passes as it is' if result.passes() else 'has no offer'}; nothing is changed")
        return None
    text = judge.standard_input() if path == "-" else None
    _refuse_script(result, options, text)
    made = mended(
        result,
        options.choose or 1,
        partial(judge, path),
        overrides=options.set,
        text=text,
        tree=_tree() if options.fix else None,
    )
    if options.fix:
        made.write()
        output.say(f"{path} now has {made.offer.summary}")
    return made


def _refuse_script(result: Result, options: argparse.Namespace, text: str | None) -> None:
    """Raises ConfigError ("not-edited") for a launch script, saying which flags to change, and where."""
    from preflight import adapters, document, scripts

    path, place = scripts.placed(result.config)
    config = document.read_all(path, overrides=options.set, text=text)[place]
    number = options.choose or 1
    if config.launch is None or result.adapter is None or not 1 <= number <= len(result.reductions):
        return
    config = adapters.by_name(result.adapter).read(config).document or config
    steps = ", ".join(_step(config, key, value) for key, value in result.reductions[number - 1].keys.items())
    message = f"{config.path} is a script, which is not edited; by hand: {steps}."
    raise ConfigError(Finding(id="not-edited", severity="error", message=message))


def _step(config: Document, key: str, value: Any) -> str:
    place, flag = config.position(key), key.rpartition(".")[2]
    line = config.launch.line if config.launch is not None else 1
    if not flag.startswith("--") and key.partition(".")[0] in config.included:
        file = config.included[key.partition(".")[0]]
        return f"set {key.partition('.')[2]} to {value} in {file}" + (f" on line {place.line}" if place is not None else "")
    if place is None:
        return f"add {' '.join((flag, *_words(value)))} to the command on line {line}"
    where = f"line {place.line}" + (f" of {place.file}" if place.file is not None else "")
    if value is False:
        return f"take {flag} out of {where}"
    return f"set {flag} on {where} to {' '.join(_words(value))}"


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, list | tuple):
        yield from (str(item) for item in value)
    elif value is not True:
        yield str(value)


def _tree() -> Path:
    """The repository around the working directory, else that directory."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), here)
