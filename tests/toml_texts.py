"""Trees of plain data written as TOML in every way that a person may: tables, dotted keys, braces, quotes, comments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from random import Random
from typing import Any

from hypothesis import strategies as st

NAMES = st.text(st.sampled_from("abcdefgh_-19"), min_size=1, max_size=4) | st.sampled_from(
    ["a b", "é", "x.y", "#", '"', "'", "[z]", "0"]
)
STRINGS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")) | st.sampled_from("\"'#\\\n\t=[]{},"), max_size=8)
SCALARS = st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False) | STRINGS.filter(lambda s: "${" not in s)
TREES = st.dictionaries(
    NAMES,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)
        | st.lists(st.dictionaries(NAMES, inner, max_size=3), min_size=1, max_size=3),
        max_leaves=10,
    ),
    min_size=1,
    max_size=4,
)  # fmt: skip


def toml(tree: dict[str, Any], random: Random) -> str:
    """`tree` as TOML text, in a manner that `random` chooses."""
    newline = random.choice(["\n", "\n", "\r\n"])
    lines = [*_noise(random), *_table(tree, "", random)]
    return newline.join(lines) + random.choice(["", newline])


def _noise(random: Random) -> list[str]:
    return random.choice([[], [], [""], ["# a comment = [1]"], ["", "  # another", ""]])


def _table(data: dict[str, Any], above: str, random: Random) -> Iterator[str]:
    """The lines of a table: its own pairs first, then the tables inside it."""
    later = []
    indent = random.choice(["", "", "  ", "\t"])
    for name, value in data.items():
        key = _key(name, random)
        several = isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)
        manner = random.choice(["header", "dotted", "inline"])
        if manner == "header" and (isinstance(value, dict) or several):
            later.append((f"{above}.{key}" if above else key, value))
        elif manner == "dotted" and isinstance(value, dict) and value:
            for below, item in value.items():
                yield indent + f"{key}{random.choice(['.', ' . '])}{_key(below, random)} = {_value(item, random)}" + _tail(random)
        else:
            yield indent + key + random.choice([" = ", "=", "  =\t"]) + _value(value, random) + _tail(random)
    for key, value in later:
        for item in value if isinstance(value, list) else [value]:
            yield from _noise(random)
            open_, close = ("[[", "]]") if isinstance(value, list) else ("[", "]")
            yield indent + open_ + random.choice(["", " "]) + key + close + _tail(random)
            yield from _table(item, key, random)


def _tail(random: Random) -> str:
    return random.choice(["", "", "  ", " # why, 'not' \"so\" = 1"])


def _key(name: str, random: Random) -> str:
    if re.fullmatch(r"[A-Za-z0-9_-]+", name) and random.random() < 0.8:
        return name
    return f"'{name}'" if "'" not in name and random.random() < 0.5 else _basic(name, random)


def _value(value: Any, random: Random) -> str:
    if isinstance(value, str):
        return _string(value, random)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key, random)} = {_value(item, random)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        comma = random.choice([", ", ",", " ,\n  # of a list\n "])
        items = comma.join(_value(item, random) for item in value)
        return "[" + random.choice(["", "\n"]) + items + random.choice(["", "," if value else "", "\n"]) + "]"
    if isinstance(value, float):
        return repr(value)
    return f"{value:_}" if random.random() < 0.3 else str(value)


def _string(word: str, random: Random) -> str:
    manner = random.choice(["basic", "literal", "lines", "literal lines"])
    if manner == "literal" and "'" not in word and "\n" not in word and word.isprintable():
        return f"'{word}'"
    if manner == "literal lines" and "''" not in word and not word.startswith("\n"):
        return f"'''{word}'''" if not word.endswith("'") else f"'''\n{word}'''"
    if manner == "lines":
        return '"""' + _basic(word, random)[1:-1].replace("\\n", "\n" if word[:1] != "\n" else "\\n") + '"""'
    return _basic(word, random)


def _basic(word: str, random: Random) -> str:
    return json.dumps(word, ensure_ascii=random.random() < 0.5 and max(word, default="") < "\U00010000")
