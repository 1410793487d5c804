"""Values that only the machine knows which runs the training: what their keys mean decides whether the rest can be judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from preflight.adapters.table import Field
from preflight.document import Document
from preflight.finding import Finding
from preflight.launching.launch import WHY, Unresolved
from preflight.position import Path, dotted, shorten

#: Groups of the spec that no step's memory depends on: a value that only the machine knows leaves them unsaid.
HARMLESS = ("paths", "schedule", "save")


def without(document: Document, find: Callable[[tuple[str, ...]], Field | bool]) -> tuple[Document, list[Finding]]:
    """`document` without what is Unresolved at a key for which `find` knows a field, and what there is to say of that.

    `find` is asked as `Table.find` is. It is an error where memory depends on the value: "unresolved-variable" in a launch
    script, else "unresolved-value".
    """
    findings: list[Finding] = []

    def known(data: Mapping[str, Any], above: Path, parts: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        for name, value in data.items():
            path, names = (*above, name), (*parts, name)
            if isinstance(value, Mapping):
                inside = dict(known(value, path, names))
                if inside or not value:
                    yield name, inside
                continue
            if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
                yield name, [of_item(item, (*path, index), (*names, "*")) for index, item in enumerate(value)]
                continue
            open_ = unresolved(value)
            found = find(names) if open_ is not None else None
            if open_ is None or not isinstance(found, Field):
                if open_ is not None and open_.reason == "absent":
                    findings.append(_left(document, path, open_))
                yield name, value
            elif found.convert.name == "boolean" and document.launch is not None and len(path) == 1:
                findings.append(_further(document, path, open_))  # a switch takes no value: what follows are further flags
                yield name, True
            else:
                findings.append(_open(document, path, open_, found))

    def of_item(item: Any, path: Path, names: tuple[str, ...]) -> Any:
        return dict(known(item, path, names)) if isinstance(item, Mapping) else item

    data = dict(known(document.data, (), ()))
    return (replace(document, data=data) if findings else document), findings


def unresolved(value: Any) -> Unresolved | None:
    """`value`, or the first item of the list that it is, where that is not known."""
    if isinstance(value, list):
        return next((item for item in value if isinstance(item, Unresolved)), None)
    return value if isinstance(value, Unresolved) else None


def _open(document: Document, path: Path, value: Unresolved, entry: Field) -> Finding:
    key, id_ = dotted(path), "unresolved-value" if document.launch is None else "unresolved-variable"
    if all(name.partition(".")[0] in HARMLESS for name in entry.paths):
        return _left(document, path, value)
    why = f"which {WHY[value.reason]}" if value == value.variable else f"and {value.why}"
    return document.finding(
        id_, "error", f"{key} is {shorten(value)}, {why}: pass --set {key}=VALUE.", key=path, fix=f"--set {key}=VALUE"
    )


def _left(document: Document, path: Path, value: Unresolved) -> Finding:
    """A value that no memory depends on; one that refers to nothing still stops the trainer as it starts."""
    id_, key = "unresolved-value" if document.launch is None else "unresolved-variable", dotted(path)
    if value.reason == "absent":
        return document.finding(id_, "warning", f"{key} is {shorten(value)}, which {WHY['absent']}.", key=path)
    return document.finding(id_, "note", f"{value.why}, so {key} is left open.", key=path)


def _further(document: Document, path: Path, value: Unresolved) -> Finding:
    message = f"{value.why}, and may hold further flags after {path[-1]}; it is taken to be empty."
    return document.finding("unresolved-arguments", "warning", message, key=path)
