"""TOML text to plain data with the place of every key.

Python's own parser reads the data and refuses what is no TOML; it keeps no positions, so the text is walked first, which also
stops what would cost too much. Dates stay strings, as in YAML.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from preflight.finding import ConfigError
from preflight.position import Parsed, Path, Position, refusal, shorten
from preflight.toml_walk import SPACE, Layout, Walk

HEADER = re.compile(r"\s*\[{1,2}[ \t]*[\w\"'][^\[\]\n]*\]{1,2}[ \t]*(?:#|\r?$)", re.MULTILINE)
PAIR = re.compile(r"\s*[\w\"'][\w.\"' -]*=[^=]")
PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")

# What tomllib says (a part of it) -> what a person has to change.
WORDS = {
    "Expected '=' after a key": "a key without its '='",
    "Invalid initial character for a key part": "a key that is neither a plain word nor in quotes",
    "Invalid statement": "neither a key, a [table] nor a comment",
    "Invalid value": "expected a value; texts stand in quotes",
    "Expected newline or end of document after a statement": "text follows the value on its line; texts stand in quotes",
    "Unclosed array": "a list that is not closed with ']', or lacks a comma",
    "Unclosed inline table": "a group that is not closed with '}', or lacks a comma",
    "Unterminated string": "a text that is not closed with its quotes",
    "Expected \"'''\"": "a text that is not closed with its quotes",
    'Expected "\'"': "a text that is not closed with its quotes",
    "Unescaped '\\' in a string": "a text with a backslash that means no character; write \\\\ or use '…'",
    "Escaped character is not": "a text with an escape that means no character",
    "Invalid hex value": "a text with an escape that means no character",
    "at the end of a table declaration": "a [table] that is not closed with ']'",
    "at the end of an array declaration": "a [[table]] that is not closed with ']]'",
    "Cannot declare": "this table is there already",
    "Cannot mutate immutable namespace": "this group is closed: it was given whole, above",
    "Cannot redefine namespace": "this group is there already",
    "Cannot overwrite a value": "a value stands there already",
    "Invalid date or datetime": "a date that is none",
    "Found invalid character": "a character that TOML does not allow here",
}


def looks_like(text: str) -> bool:
    """Whether `text` begins as TOML does: with a [table], or a key and its `=`."""
    start = SPACE.match(text)
    at = start.end() if start else 0
    return bool(HEADER.match(text, at) or PAIR.match(text, at))


def read(text: str) -> Parsed:
    """The data of `text`.

    Raises ConfigError: not TOML, nothing in it, a key or a table twice, or more than the limits of `position` allow.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    walk = Walk(text)
    stopped = walk.run()
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _broken(error, walk) from None
    if stopped is not None:
        raise refusal("invalid-toml", "This is not TOML that can be read: expected a key or a value.", walk.position(stopped))
    if not data:
        raise refusal("empty-config", "The config is empty.")
    return Parsed(_plain(data, (), walk), walk.positions)


def layout(text: str) -> Layout:
    """Where each value and each table of `text` stands; raises ConfigError as `read` does."""
    read(text)
    walk = Walk(text)
    walk.run()
    return Layout(walk.spans, walk.tables)


def _broken(error: ValueError, walk: Walk) -> ConfigError:
    message = str(error)
    place = PLACE.search(message)
    position = Position(int(place[1]), int(place[2])) if place and place[1] else walk.end
    problem = PLACE.sub("", message)
    words = next((ours for theirs, ours in WORDS.items() if theirs in problem), shorten(problem, 200))
    return refusal("invalid-toml", f"This is not valid TOML: {words}.", position, walk.key_on(position))


def _plain(value: Any, path: Path, walk: Walk) -> Any:
    """`value` in the types of JSON: a date is the text it is written as."""
    if isinstance(value, dict):
        return {key: _plain(item, (*path, key), walk) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, (*path, index), walk) for index, item in enumerate(value)]
    return value if isinstance(value, str | int | float) else walk.written(path)
