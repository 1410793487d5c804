"""Flags that may also stand in a TOML which one of them names, as in kohya-ss' trainers: `--config_file run.toml`.

The file's tables only group its keys, and a flag of the command line goes before it (read_config_from_file). The TOML alone is read
as well: it says all but how many GPUs there are.

TABLE = config_flags.table(unread=…, fields=(…, *launcher.FIELDS), no_effect=…)
document = config_flags.including(document)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

from preflight.adapters import flags, launcher, launcher_fields, run_values
from preflight.adapters.conversions import SILENT, STEPS, Conversion, flag_text
from preflight.adapters.draft import Draft
from preflight.adapters.run_values import count
from preflight.adapters.table import Field, Table
from preflight.document import Document
from preflight.finding import Finding
from preflight.launching.launch import Unresolved

#: The names of the two files in the data, and of all that is no flag of the trainer.
CONFIG, DATASET = "config", "dataset"
GROUPS = frozenset({CONFIG, DATASET, "launcher", "hardware", launcher_fields.CONFIG, launcher_fields.DEEPSPEED})
GPUS = "accelerate launch decides, and this file does not say how many it starts; pass --set hardware.gpus=N"

#: When such a trainer samples, saves and stops, and where it writes, in the words that both have from one author.
RUN = (
    Field(path="_prompts", keys=("sample_prompts",), convert=run_values.place()),
    Field(path="sample.every", keys=("sample_every_n_steps",), convert=flag_text(count())),
    Field(path="sample.every_epochs", keys=("sample_every_n_epochs",), convert=flag_text(count())),
    Field(path="save.every", keys=("save_every_n_steps",), convert=flag_text(count())),
    Field(path="save.every_epochs", keys=("save_every_n_epochs",), convert=flag_text(count())),
    Field(path="_keep_steps", keys=("save_last_n_steps",), convert=flag_text(count())),
    Field(path="_keep_epochs", keys=("save_last_n_epochs",), convert=flag_text(count())),
    Field(path="schedule.steps", keys=("max_train_steps",), convert=flag_text(count(1, STEPS))),
    Field(path="schedule.epochs", keys=("max_train_epochs",), convert=flag_text(count())),
    Field(path="schedule.warmup", keys=("lr_warmup_steps",), convert=flag_text(count(0))),
    Field(path="paths.output", keys=("output_dir",), convert=run_values.place()),
    Field(path="paths.resume", keys=("resume", "network_weights"), convert=run_values.place()),
)


def table(*, unread: str, fields: Sequence[Field], no_effect: Sequence[str] = ()) -> Table:
    """`flags.flag_table`, each flag also as a key of the TOML, which a flag of the command line goes before."""
    twice = [each for entry in fields for each in _twice(entry)]
    silent = (*no_effect, *(f"{CONFIG}.{key}" for key in no_effect))
    known = flags.flag_table(unread=unread, fields=twice, no_effect=silent, files=(CONFIG, DATASET))
    return replace(known, locate=partial(_locate, known), prefer=partial(_prefer, known))


def _twice(entry: Field) -> Iterator[Field]:
    own = tuple(key for key in entry.keys if key.partition(".")[0] not in GROUPS)
    if not own:
        yield entry
        return
    yield replace(entry, precedence=entry.precedence + 1)
    yield replace(entry, keys=tuple(f"{CONFIG}.{key}" for key in own), default=SILENT, source="")


def _locate(known: Table, parts: tuple[str, ...]) -> tuple[str, ...]:
    head, *below = parts
    if head == CONFIG and below:
        return (CONFIG, below[-1])
    if len(parts) > 1 and head not in GROUPS:
        return parts[-1:]
    return known.locate(parts)


def _prefer(known: Table, key: str, document: Document) -> str:
    return known.prefer(key, document) if document.launch is not None else key


def including(document: Document, *, dataset: str = "dataset_config") -> Document:
    """`document` with the launcher's files, the trainer's TOML under "config" and the data set's under "dataset"."""
    document = launcher.including(document) if document.launch is not None else document
    path = _path(document, "config_file") if document.launch is not None else None
    document = flags.including(document, CONFIG, path if path is None or path.endswith(".toml") else path + ".toml")
    return flags.including(document, DATASET, _path(document, dataset))


def _path(document: Document, name: str) -> str | None:
    """The file that the flag `name` names; None where only the machine knows it, or nothing is said."""
    said = value(document, name)
    return said if isinstance(said, str) and not isinstance(said, Unresolved) and said.strip() else None


def value(document: Document, name: str) -> Any:
    """What the flag `name` says, on the command line or in the TOML, as it stands there; None where nothing does."""
    for data in (document.data, document.data.get(CONFIG)):
        if isinstance(data, Mapping):
            said = [value for key, value in _flat(data) if key.lstrip("-").replace("-", "_") == name]
            if said:
                return said[-1]
    return None


def _flat(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, said in data.items():
        if isinstance(said, Mapping):
            if key not in GROUPS:
                yield from said.items()
        else:
            yield key, said


def missing(run: Draft, *, dataset: str = "dataset_config", instead: str = "") -> None:
    """Says which of the two files were named and are not there; `instead` is what is taken for the data set's."""
    for name, key, said in ((CONFIG, "config_file", "only the flags beside it are read"), (DATASET, dataset, instead)):
        path = value(run.document, key)
        if isinstance(path, str) and name not in run.document.included and not (name == CONFIG and run.document.launch is None):
            run.findings.append(_missing(run, key, path, said))


def _missing(run: Draft, key: str, path: str, said: str) -> Finding:
    message = f"{path} is not there, so {said}."
    return run.document.finding("file-not-read", "warning", message, key=spelled(run.document, key))


def spelled(document: Document, name: str) -> str:
    """The user's own key for the flag `name`."""
    for place, data in (("", document.data), (f"{CONFIG}.", document.data.get(CONFIG))):
        for key, said in data.items() if isinstance(data, Mapping) else ():
            if key.lstrip("-").replace("-", "_") == name:
                return f"{place}{key}"
            if isinstance(said, Mapping) and key not in GROUPS and name in said:
                return f"{place}{key}.{name}"
    return name


def rewritten(
    document: Document, key: str, convert: Conversion, wanted: Any, deciding: str | None, *, own: str | None = None
) -> dict[str, Any]:
    """`wanted` for the setting `key` of the data set: where it decides now, and wherever more than that is said of it.

    `own` is the flag of the same meaning, which is set where nothing says it; without one that is the data set's part for all.
    """
    answer = {}
    for place, raw in _places(document, key, own):
        if place == deciding or _extent(convert.read(raw)) > _extent(wanted):
            answer[place] = convert.write(wanted, raw)
    if answer:
        return answer
    flag = f"--{own}" if own and document.launch is not None else own
    return {flag or f"{DATASET}.general.{key}": convert.write(wanted, None)}


def _places(document: Document, key: str, own: str | None) -> Iterator[tuple[str, Any]]:
    """Where the data set's TOML and the flag say `key`, and what."""
    group = document.data.get(DATASET)
    data = group if isinstance(group, Mapping) else {}
    general, items = data.get("general"), data.get("datasets")
    if isinstance(general, Mapping) and key in general:
        yield f"{DATASET}.general.{key}", general[key]
    for number, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, Mapping) and key in item:
            yield f"{DATASET}.datasets[{number}].{key}", item[key]
    if own is not None and value(document, own) is not None:
        yield spelled(document, own), value(document, own)


def _extent(said: Any) -> float:
    return prod(said) if isinstance(said, tuple) else float(said)


def settle(run: Draft) -> launcher.Launched:
    """`launcher.settle`, for a TOML alone with the launcher's part left open."""
    if run.document.launch is None:
        run.assume("parallel.gpus", 1, GPUS)
    return launcher.settle(run)
