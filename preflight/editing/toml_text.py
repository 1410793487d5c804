"""TOML text with single values replaced or added where they stand: comments, order and quotes stay."""

from __future__ import annotations

import contextlib
import json
import math
import re
from typing import Any

from preflight import toml_positions
from preflight.editing.siblings import break_of, line_end, neighbour
from preflight.finding import ConfigError
from preflight.position import Path, Position, dotted, refusal
from preflight.toml_walk import STRING, Layout, Table

BARE = re.compile(r"[A-Za-z0-9_-]+")
PLAIN = re.compile(r"[^\[{]")
# A value with a comment in it, which one on a single line would lose: the texts in it are skipped.
COMMENT = re.compile(r"(?:" + STRING.pattern + r"|[^\"'#])*#", re.DOTALL)


def edited(text: str, path: Path, value: Any) -> str:
    """`text` with `value` at `path`; raises ConfigError where that cannot be written without touching more than the value."""
    layout = toml_positions.layout(text)
    if value is None:
        raise _refused(text, layout, path, "would be empty, for which TOML has no word")
    if path in layout.spans:
        return _replaced(text, layout, path, value)
    if _is_there(layout, path):
        raise _refused(text, layout, path, "is a table")
    depth = next(n for n in range(len(path) - 1, -1, -1) if _is_there(layout, path[:n]))
    inside = next((n for n in range(depth, 0, -1) if path[:n] in layout.spans), 0)
    parent, names = path[: inside or depth], [str(step) for step in path[inside or depth :]]
    if isinstance(path[depth], int) or _is_list(layout, path[:depth]):
        raise _refused(text, layout, path[:depth], "is a list without such an item")
    return (_added_inside if inside else _added)(text, layout, parent, names, value)


def written(value: Any, old: str = "") -> str:
    """`value` as TOML on one line, in the quotes of what it stands in for."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"'{value}'" if old[:1] == "'" and "'" not in value and value.isprintable() else _quoted(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(written(item) for item in value)}]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_name(str(key))} = {written(item)}" for key, item in value.items()) + " }" if value else "{}"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value)


def _quoted(word: str) -> str:
    plain = json.dumps(word, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in plain)


def _name(word: str) -> str:
    return word if BARE.fullmatch(word) else _quoted(word)


def _is_there(layout: Layout, path: Path) -> bool:
    """Whether something stands at `path`: a value, or a group that a header or a longer key opens."""
    return (
        not path or path in layout.spans or any(at[: len(path)] == path for at in (*layout.spans, *(t.path for t in layout.tables)))
    )


def _is_list(layout: Layout, path: Path) -> bool:
    """Whether [[tables]] of that name stand at `path`."""
    return (*path, 0) in (table.path for table in layout.tables)


def _replaced(text: str, layout: Layout, path: Path, value: Any) -> str:
    start, end = layout.spans[path].value
    old = text[start:end]
    items = [at for at in layout.spans if at[:-1] == path and at and isinstance(at[-1], int)]
    if isinstance(value, list | tuple) and items and len(items) == len(value):
        for at, item in reversed(list(zip(items, value, strict=True))):
            start, end = layout.spans[at].value
            text = text[:start] + _kept(text[start:end], item) + text[end:]
        return text
    if COMMENT.match(old) and old[:1] in "[{":
        raise _refused(text, layout, path, "holds comments, which would be lost")
    return text[:start] + written(value, old) + text[end:]


def _kept(old: str, value: Any) -> str:
    """`value` as it is written already, where it is."""
    with contextlib.suppress(ConfigError):
        if toml_positions.read(f"key = {old}").data["key"] == value:
            return old
    return written(value, old)


def _added_inside(text: str, layout: Layout, parent: Path, names: list[str], value: Any) -> str:
    """A new key of a group in braces."""
    start, end = layout.spans[parent].value
    if text[start : start + 1] != "{":
        raise _refused(text, layout, parent, "is no group of keys")
    pair = f"{'.'.join(map(_name, names))} = {written(value)}"
    members = [span for at, span in layout.spans.items() if at[: len(parent)] == parent and len(at) > len(parent)]
    if not members:
        return f"{text[:start]}{{ {pair} }}{text[end:]}"
    last = max(span.value[1] for span in members)
    return f"{text[:last]}, {pair}{text[last:]}"


def _added(text: str, layout: Layout, parent: Path, names: list[str], value: Any) -> str:
    """A new key beside its siblings: in the table of that name, or where its longer keys stand, or in a table of its own."""
    home = next((table for table in layout.tables if table.path == parent and (parent or not names[1:])), None)
    if home is not None and (home.pairs or home.header[1]):
        return _below(text, layout, home, names, value)
    for table in layout.tables:
        around = parent[: len(table.path)] == table.path
        if parent and around and any(at[: len(parent)] == parent for at in table.pairs):
            spelled = [str(step) for step in parent[len(table.path) :]]
            return _below(text, layout, table, [*spelled, *names], value)
    if home is not None:
        return _top(text, layout, names, value)
    if not parent:
        *group, last = names
        return _table(text, len(text), group, last, value)
    inner = next(table for table in layout.tables if table.path[: len(parent)] == parent)
    *group, last = [*(str(step) for step in parent if isinstance(step, str)), *names]
    return _table(text, inner.header[0], group, last, value)


def _below(text: str, layout: Layout, table: Table, names: list[str], value: Any) -> str:
    """A line among those of `table`."""
    line = f"{'.'.join(map(_name, names))} = {written(value)}"
    newline = break_of(text, table.header[0])
    if not table.pairs:
        start, end = table.header
        at = line_end(text, end)
        indent = _indent(text, start)
    else:
        spans = [layout.spans[at] for at in table.pairs]
        scalars = [bool(PLAIN.match(text, span.value[0])) for span in spans]
        keys = [".".join(map(str, at[len(table.path) :])) for at in table.pairs]
        span = spans[neighbour(".".join(names), keys, scalars)]
        at = line_end(text, span.value[1])
        indent = _indent(text, span.key)
    if at == len(text) and not text.endswith("\n"):
        return f"{text}{newline}{indent}{line}"
    return f"{text[:at]}{indent}{line}{newline}{text[at:]}"


def _top(text: str, layout: Layout, names: list[str], value: Any) -> str:
    """A line before the first of the tables, where none stands yet."""
    newline = break_of(text, 0)
    at = _above(text, layout.tables[1].header[0])
    return f"{text[:at]}{'.'.join(map(_name, names))} = {written(value)}{newline}{newline}{text[at:]}"


def _table(text: str, before: int, group: list[str], name: str, value: Any) -> str:
    """A table of its own, before the header at `before` or at the end."""
    newline = break_of(text, 0)
    lines = f"[{'.'.join(map(_name, group))}]{newline}{_name(name)} = {written(value)}{newline}"
    if before < len(text):
        at = _above(text, before)
        return f"{text[:at]}{lines}{newline}{text[at:]}"
    gap = newline if not text or text.endswith("\n") else newline * 2
    ending = "" if text and not text.endswith("\n") else newline
    return text + gap + lines.removesuffix(newline) + ending


def _indent(text: str, at: int) -> str:
    before = text[_line_start(text, at) : at]
    return before if not before.strip() else ""


def _above(text: str, header: int) -> int:
    """Where the line of the header at `header` begins, or the comment that stands right above it."""
    at = _line_start(text, header)
    while at and text[_line_start(text, at - 1) : at].lstrip().startswith("#"):
        at = _line_start(text, at - 1)
    return at


def _line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def _refused(text: str, layout: Layout, path: Path, why: str) -> ConfigError:
    at = next((layout.spans[path[:n]].key for n in range(len(path), 0, -1) if path[:n] in layout.spans), None)
    place = None if at is None else Position(text.count("\n", 0, at) + 1, at - _line_start(text, at) + 1)
    return refusal("not-edited", f"{dotted(path)} {why}, so it is not edited; change it by hand.", place, path)
