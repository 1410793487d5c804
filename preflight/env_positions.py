"""A `.env` file to plain data with the place of every key: `NAME=value` lines, as shells and SimpleTuner's config.env write them.

`export` and the quotes around a value are dropped, `NAME+=…` adds to what stands above, and `$NAME` or `${NAME}` of a name that the
file gives is its value, as for the shell that sources the file. Values stay texts.
"""

from __future__ import annotations

import re
from functools import partial

from preflight.position import MAX_VALUES, Parsed, Path, Position, refusal, shorten, too_many_values

NAME = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
LINE = re.compile(r"[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_]\w*)[ \t]*(?P<adds>\+?)=[ \t]*(?P<value>.*?)[ \t]*$")


def read(text: str) -> Parsed:
    """The file's names and texts. Raises ConfigError for a line that is no assignment."""
    data: dict[str, str] = {}
    positions: dict[Path, Position] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LINE.match(line)
        if match is None:
            message = f'"{shorten(line.strip())}" is no assignment; expected NAME=value.'
            raise refusal("invalid-env", message, Position(number, 1))
        name, value = match["name"], _value(match["value"])
        value = NAME.sub(partial(_known, data, name), value) if match["value"][:1] != "'" else value
        data[name] = f"{data.get(name, '')} {value}".strip() if match["adds"] else value.strip()
        positions[(name,)] = Position(number, match.start("name") + 1)
        if len(data) > MAX_VALUES:
            raise too_many_values()
    return Parsed(data, positions)


def _value(spelled: str) -> str:
    """What the text after `=` says, without the quotes around it, or a comment behind it."""
    if spelled[:1] in ("'", '"'):
        end = spelled.find(spelled[0], 1)
        return spelled[1:end] if end > 0 else spelled[1:]
    return re.split(r"(?:^|\s)#", spelled, maxsplit=1)[0].strip()


def _known(data: dict[str, str], own: str, told: re.Match[str]) -> str:
    name = told[1] or told[2]
    return data.get(name, "" if name == own else told[0])
