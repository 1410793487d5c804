"""JSON text with single values replaced or added where they stand; comments and trailing commas stay."""

from __future__ import annotations

import json
import re
from typing import Any

from preflight import json_positions
from preflight.editing.siblings import break_of, line_end
from preflight.position import Path, dotted, refusal

COMMA = re.compile(r"\s*,")


def edited(text: str, path: Path, value: Any) -> str:
    """`text` with `value` at `path`; raises ConfigError where something on the way to it holds no keys."""
    spans = json_positions.spans(text)
    if path in spans:
        start, end = spans[path].value
        items = [step for step in spans if step[:-1] == path and len(step) == len(path) + 1]
        if isinstance(value, list | tuple) and items and len(items) == len(value) and isinstance(items[0][-1], int):
            for index, item in enumerate(value):
                start, end = json_positions.spans(text)[(*path, index)].value
                text = text[:start] + written(item) + text[end:]
            return text
        return text[:start] + written(value) + text[end:]
    depth = next(n for n in range(len(path) - 1, -1, -1) if path[:n] in spans or n == 0)
    for step in reversed(path[depth + 1 :]):
        value = {str(step): value}
    start, end = spans[path[:depth]].value
    if text[start : start + 1] != "{":
        where = dotted(path[:depth])
        raise refusal("not-edited", f"{where} is no group of keys, so it is not edited; change it by hand.", None, path[:depth])
    return _added(text, path[:depth], str(path[depth]), value)


def written(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def _added(text: str, parent: Path, name: str, value: Any) -> str:
    """A new member of the object at `parent`, after its last one and indented as that is."""
    spans = json_positions.spans(text)
    pair = f"{json.dumps(name, ensure_ascii=False)}: {written(value)}"
    members = [span for step, span in spans.items() if step[:-1] == parent and len(step) == len(parent) + 1]
    start, _ = spans[parent].value
    if not members:
        return text[: start + 1] + pair + text[start + 1 :]
    last = members[-1]
    end = last.value[1]
    before = text[text.rfind("\n", 0, last.key) + 1 : last.key]
    if before.strip() or "\n" not in text[start : last.key]:
        return f"{text[:end]}, {pair}{text[end:]}"
    comma = COMMA.match(text, end)
    newline, at = break_of(text, end), line_end(text, comma.end() if comma else end)
    if text[at - 1 : at] != "\n" or text[end:at].strip().startswith("}"):
        return f"{text[:end]},{newline}{before}{pair}{text[end:]}"
    if comma:
        return f"{text[:at]}{before}{pair},{newline}{text[at:]}"
    return f"{text[:end]},{text[end:at]}{before}{pair}{newline}{text[at:]}"
