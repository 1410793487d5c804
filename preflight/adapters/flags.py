"""Trainers that are told everything by flags: a table of those, and a launch script's command read through it.

TABLE = flags.flag_table(unread="{key} is not a flag of X, whose parser stops at it", fields=(…, *launcher.FIELDS), …)

def matches(document):
    return flags.runs(document, "wan_train_network.py", "musubi_tuner.wan_train_network")

def read(document):
    run = flags.draft(launcher.including(document), TABLE)
    …
    launcher.settle(run)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from preflight.adapters import draft as drafts
from preflight.adapters import launcher_keys
from preflight.adapters.conversions import RANKS, Conversion, RefusedError, flag_text, whole
from preflight.adapters.draft import Draft
from preflight.adapters.table import HARDWARE, Field, Table
from preflight.document import Document
from preflight.finding import Finding
from preflight.launching.launch import Unresolved

GPUS = Field(path="parallel.gpus", keys=("hardware.gpus",), convert=whole(1, RANKS))


def flag_table(
    *,
    unread: str,
    fields: Sequence[Field],
    no_effect: Sequence[str] = (),
    dashes: bool = False,
    sections: Sequence[str] = (),
    files: Sequence[str] = (),
) -> Table:
    """A table of flags, keys written without leading dashes and with underscores ("lora_rank"); `--lora-rank` names it too.

    `unread` is the sentence for a flag that is not here, `no_effect` are patterns of those that change no memory. `dashes` says
    that the trainer spells its flags `--lora-rank`, which is how one that the user has not set is written. Any unambiguous
    beginning of a flag is that flag, as in argparse. Values are read from text ("32", ["480", "832"]), and as `--set` gives them.
    `files` are groups of keys that stand for files which a flag names, beside those of the launcher.
    """
    known = frozenset(name for entry in fields for name in entry.keys) | {name for name in no_effect if "*" not in name}
    return Table(
        unread=unread,
        fields=tuple(replace(entry, convert=spoken(entry.convert)) for entry in _completed(fields)),
        no_effect=(*no_effect, *launcher_keys.NO_EFFECT),
        sections=frozenset({"hardware", *sections}),
        locate=partial(_locate, known),
        prefer=partial(_prefer, dashes),
        null_is_unset=False,
        files=frozenset({*launcher_keys.FILES, *files}),
    )


def _completed(fields: Sequence[Field]) -> Iterator[Field]:
    """The fields, and those of our own that no trainer has."""
    yield from fields
    taken = {key for entry in fields for key in entry.keys}
    yield from (entry for entry in (*HARDWARE, GPUS) if not taken & set(entry.keys))


def runs(document: Document, *endings: str) -> bool:
    """Whether `document` is a launch of a program that ends in one of `endings`: "train.py", "wanvideo/train.py", "pkg.module"."""
    if document.launch is None:
        return False
    program = document.launch.program.replace("\\", "/")
    return any(program == end or program.endswith((f"/{end}", f".{end}")) for end in endings)


def draft(document: Document, table: Table) -> Draft:
    """`document` read through `table`, defaults filled in. Raises ConfigError for values that cannot be read.

    What depends on a variable that the script does not set is an error ("unresolved-variable") where memory depends on it.
    """
    result = drafts.draft(document, table)
    result.findings += _more(document)
    return result


def including(document: Document, name: str, path: str | None) -> Document:
    """`document` with the file at `path` under the key `name`; as it is where there is no such file, or `path` is not known.

    A script may stand some folders below the one that it is started from, so the folders above its own are looked into, too.
    """
    if not isinstance(path, str) or isinstance(path, Unresolved) or not path.strip():
        return document
    for above in ("", "../", "../../", "../../../")[: 1 if path.startswith("/") or document.launch is None else None]:
        found = document.including(name, above + path)
        if found is not None:
            return found
    return document


def spoken(inner: Conversion) -> Conversion:
    """`inner` for the words of a command line: each is tried as it stands, then as a number; a flag without a value is true."""
    numbers = flag_text(inner)

    def read(value: Any) -> Any:
        if isinstance(value, str | list):
            try:
                return inner.read(value)
            except RefusedError:
                plain = [_scalar(word) for word in value] if isinstance(value, list) else value
                return numbers.read(plain)
        if value is True and inner.name != "boolean":
            try:
                return inner.read(value)
            except RefusedError as refused:
                raise RefusedError(refused.expected, "a flag without a value") from None
        return inner.read(value)

    def write(value: Any, raw: Any) -> Any:
        if isinstance(raw, list):
            return inner.write(value, [_scalar(word) for word in raw])
        return inner.write(value, _scalar(raw) if isinstance(raw, str) else raw)

    schema = inner.schema if _takes_text(inner.schema) else {"anyOf": [inner.schema, {"type": "string"}]}
    return Conversion(name=inner.name, read=read, write=write, schema=schema)


def _takes_text(schema: Mapping[str, Any]) -> bool:
    kinds = schema.get("type", ())
    return (
        "enum" in schema
        or "string" in ([kinds] if isinstance(kinds, str) else kinds)
        or any(map(_takes_text, schema.get("anyOf", ())))
    )


def _scalar(word: Any) -> Any:
    if not isinstance(word, str):
        return word
    if re.fullmatch(r"[-+]?[0-9]{1,18}", word):
        return int(word)
    return float(word) if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", word) else word


def _more(document: Document) -> list[Finding]:
    """What stands where flags may: variables that the script does not set."""
    words = document.launch.arguments if document.launch is not None else ()
    return [
        document.finding("unresolved-arguments", "warning", f"{word.why}, and may hold further flags; it is taken to be empty.")
        for word in words
        if isinstance(word, Unresolved)
    ]


def _locate(known: frozenset[str], parts: tuple[str, ...]) -> tuple[str, ...]:
    plain = tuple(part.lstrip("-").replace("-", "_") for part in parts)
    if len(plain) != 1 or plain[0] in known or not plain[0]:
        return plain
    longer = [name for name in known if name.startswith(plain[0])]
    return (longer[0],) if len(longer) == 1 and parts[0].startswith("--") else plain


def _prefer(dashes: bool, key: str, _: Document) -> str:
    """Our `key` as the trainer's flag; keys of ours that are no flags stay as they are."""
    if key.startswith("hardware."):
        return key
    *group, name = key.split(".")
    if group and group != ["launcher"]:
        return key
    return ".".join((*group, "--" + (name.replace("_", "-") if dashes and not group else name)))
