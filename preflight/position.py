"""Where a key stands in a text, and the refusal that every reader raises with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from preflight.finding import ConfigError, Finding

Path: TypeAlias = tuple[str | int, ...]

# Real configs stay below 10 KiB, 1,000 values and 10 levels; these stop a hostile file before it costs a second.
MAX_BYTES = 8 * 2**20
MAX_VALUES = 50_000
MAX_DEPTH = 100
MAX_DIGITS = 400  # a float ends at 309 digits; converting a number of a million digits takes minutes


class Position(NamedTuple):
    """A place in a text; lines and columns count from 1. `file` is the one it is in when that is not the config itself."""

    line: int
    column: int
    file: str | None = None


class Parsed(NamedTuple):
    """What a format's reader returns: plain data, and the place of every key and list item in it."""

    data: Any
    positions: Mapping[Path, Position]


def dotted(path: Path) -> str:
    """`path` as a person writes it and `--set` reads it: `("datasets", 0, "size")` is "datasets[0].size"."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def kind(value: object) -> str:
    """What `value` is, in the words of a person who writes configs: "a string", "a list", "null"."""
    if value is None:
        return "null"
    for types, words in _KINDS:
        if isinstance(value, types):
            return words
    return f"a {type(value).__name__}"


_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "true or false"),
    (str, "a string"),
    (int, "a whole number"),
    (float, "a number"),
    (Mapping, "a group of keys"),
    ((list, tuple), "a list"),
)


def shorten(text: str, length: int = 60) -> str:
    """`text`, cut in the middle of a sentence when it is longer than `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def refusal(id_: str, message: str, position: Position | None = None, path: Path = ()) -> ConfigError:
    """The exception to raise for one error at one place; nothing in it names the config, which the report does."""
    line, column, file = position or (None, None, None)
    key = dotted(path) or None
    return ConfigError(Finding(id=id_, severity="error", message=message, key=key, line=line, column=column, file=file))


def too_many_values(position: Position | None = None) -> ConfigError:
    return refusal("too-large", f"The config holds more than {MAX_VALUES:,} values once aliases are expanded.", position)


def too_deep(position: Position | None = None) -> ConfigError:
    return refusal("too-deep", f"The config is nested more than {MAX_DEPTH} levels deep.", position)
