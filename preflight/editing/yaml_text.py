"""YAML text with single values replaced or added where they stand: comments, order, quotes and anchors stay."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from preflight import yaml_positions
from preflight.editing.siblings import break_of, line_end, neighbour
from preflight.finding import ConfigError
from preflight.position import Path, Position, dotted, refusal

PROPERTIES = re.compile(r"(?:[&!][^\s,\[\]{}]*\s*)*")
ALIAS = re.compile(r"\*[^\s,\[\]{}]+")
INDENT = 2


class Entry(NamedTuple):
    """A key of a mapping with its value, as nodes; an alias is a value that stands before its key."""

    key: Any
    value: Any

    @property
    def name(self) -> str:
        return str(self.key.value)

    @property
    def is_alias(self) -> bool:
        return bool(self.value.start_mark.index < self.key.end_mark.index)


def edited(text: str, path: Path, value: Any) -> str:
    """`text` with `value` at `path`; raises ConfigError where that cannot be written without touching more than the value."""
    node = yaml_positions.compose(text)
    for depth, step in enumerate(path):
        here = path[: depth + 1]
        if _kind(node) == "sequence" and isinstance(step, int):
            if step >= len(node.value):
                raise _refused(path[:depth], node, "is a list without such an item")
            entry = Entry(node, node.value[step])
            if entry.value.start_mark.index < node.start_mark.index:
                raise _refused(here, entry.value, "is an alias of a value that stands elsewhere")
        elif _kind(node) == "mapping":
            found = [Entry(*pair) for pair in node.value if str(pair[0].value) == str(step)]
            if not found:
                return _added(text, node, path, depth, value)
            entry = found[0]
            if entry.is_alias and depth < len(path) - 1:
                raise _refused(here, entry.key, "is an alias of a group that stands elsewhere")
            if entry.is_alias:
                return _alias_replaced(text, entry, value)
        else:
            return _nested(text, node, path, depth, value)
        node = entry.value
    return _replaced(text, node, path, value)


def _kind(node: Any) -> str:
    return str(node.id)


def _replaced(text: str, node: Any, path: Path, value: Any) -> str:
    if isinstance(value, list | tuple) and _kind(node) == "sequence" and len(node.value) == len(value):
        for index, item in enumerate(value):
            if _plain(text, node.value[index]) != item:
                text = edited(text, (*path, index), item)
        return text
    if _kind(node) != "scalar" and not node.flow_style:
        raise _refused(path, node, "is a block of several lines")
    if _kind(node) == "scalar" and node.style in ("|", ">"):
        raise _refused(path, node, "is a text of several lines")
    start, end = _span(text, node)
    old = text[start:end]
    gap = " " if start == end else ""
    return text[:start] + gap + written(value, old) + text[end:]


def _span(text: str, node: Any) -> tuple[int, int]:
    """Where the value itself stands, behind its anchor and tag."""
    start, end = node.start_mark.index, node.end_mark.index
    properties = PROPERTIES.match(text, start, end)
    return (properties.end() if properties else start), end


def _plain(text: str, node: Any) -> Any:
    start, end = _span(text, node)
    try:
        return yaml_positions.value(text[start:end])
    except ConfigError:
        return None


def written(value: Any, old: str = "") -> str:
    """`value` as YAML on one line, in the quotes and the case of what it stands in for."""
    if isinstance(value, bool):
        word = "true" if value else "false"
        return word.title() if old.istitle() else word.upper() if old.isupper() and len(old) > 1 else word
    if isinstance(value, list | tuple):
        return f"[{', '.join(written(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{written(str(key))}: {written(item)}" for key, item in value.items()) + "}"
    if not isinstance(value, str):
        return json.dumps(value)
    if old[:1] == "'" and value.isprintable():
        return "'" + value.replace("'", "''") + "'"
    return value if old[:1] != '"' and _bare(value) else _quoted(value)


def _quoted(word: str) -> str:
    """In double quotes, with escapes for what YAML does not take as it is."""
    plain = json.dumps(word, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in plain)


def _bare(word: str) -> bool:
    """Whether YAML reads `word` as itself, in braces as well."""
    try:
        return bool(yaml_positions.value(f"[{word}]") == [word])
    except ConfigError:
        return False


def _alias_replaced(text: str, entry: Entry, value: Any) -> str:
    """The alias gives way to a value of its own; what it stood for is left alone."""
    alias = ALIAS.search(text, entry.key.end_mark.index)
    if alias is None:
        raise _refused((entry.name,), entry.key, "is an alias")
    return text[: alias.start()] + written(value) + text[alias.end() :]


def _nested(text: str, node: Any, path: Path, depth: int, value: Any) -> str:
    """A value where there is an empty one: `data:` with nothing behind it."""
    start, end = _span(text, node)
    if _kind(node) != "scalar" or text[start:end] not in ("", "~", "null"):
        raise _refused(path[:depth], node, "is no group of keys")
    for step in reversed(path[depth:]):
        value = {str(step): value}
    return text[:start] + (" " if start == end else "") + written(value) + text[end:]


def _added(text: str, node: Any, path: Path, depth: int, value: Any) -> str:
    """A new key in the mapping `node`, beside its siblings."""
    name, below = str(path[depth]), path[depth + 1 :]
    entries = [Entry(*pair) for pair in node.value]
    if node.flow_style or not entries:
        for step in reversed(below):
            value = {str(step): value}
        pair = f"{written(name)}: {written(value)}"
        if not entries:
            return text[: node.start_mark.index] + "{" + pair + "}" + text[node.end_mark.index :]
        end = _end(text, entries[-1])
        return f"{text[:end]}, {pair}{text[end:]}"
    plain = [_kind(entry.value) == "scalar" for entry in entries]
    after = entries[neighbour(name, [entry.name for entry in entries], plain) if not below else -1]
    column = " " * entries[0].key.start_mark.column
    end = _end(text, after)
    newline = break_of(text, end)
    lines = [f"{column}{written(name)}:"]
    for number, step in enumerate(below, 1):
        lines.append(f"{column}{' ' * (INDENT * number)}{written(str(step))}:")
    block = newline.join(lines) + f" {written(value)}"
    at = end if text[end - 1 : end] == "\n" else line_end(text, end)
    if at == len(text) and not text.endswith("\n"):
        return text + newline + block
    return text[:at] + block + newline + text[at:]


def _end(text: str, entry: Entry) -> int:
    """Where the text of an entry ends: behind the last character of its last value."""
    if entry.is_alias:
        alias = ALIAS.search(text, entry.key.end_mark.index)
        return alias.end() if alias else int(entry.key.end_mark.index)
    node, floor = entry.value, entry.key
    while _kind(node) != "scalar" and not node.flow_style and node.value:
        if _kind(node) == "sequence":
            last = node.value[-1]
            if last.start_mark.index < node.start_mark.index:
                alias = ALIAS.search(
                    text, Entry(node, node.value[-2]).value.end_mark.index if len(node.value) > 1 else node.start_mark.index
                )
                return alias.end() if alias else int(node.end_mark.index)
            node = last
        else:
            return _end(text, Entry(*node.value[-1]))
    empty = _kind(node) == "scalar" and node.start_mark.index == node.end_mark.index
    return int(max(node.start_mark.index, floor.end_mark.index) if empty else node.end_mark.index)


def _refused(path: Path, node: Any, why: str) -> ConfigError:
    place = Position(node.start_mark.line + 1, node.start_mark.column + 1)
    return refusal("not-edited", f"{dotted(path)} {why}, so it is not edited; change it by hand.", place, path)
