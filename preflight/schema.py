"""Data against a JSON Schema, in our own words: which value is wrong, why, and what was expected.

Stricter than JSON Schema in one place, as bytes are counted in whole numbers: 4.0 is no whole number, and NaN and
the infinities are no numbers at all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from preflight import paths
from preflight.document import Document
from preflight.finding import Finding, Severity, did_you_mean
from preflight.position import Path, dotted, kind, shorten


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """One value that the schema refuses: `problem` follows the key's name in a sentence, `expected` ends it.

    `id` is "unknown-key", "missing-key" or "invalid-value".
    """

    id: str
    path: Path
    problem: str
    expected: str
    fix: str | None = None

    @property
    def message(self) -> str:
        """The sentence with the key as the data spells it."""
        return self.sentence(dotted(self.path) or "the top level")

    def sentence(self, key: str) -> str:
        """The sentence with the key's name as the user knows it."""
        return f"{key} {self.problem}; {self.expected}".rstrip(".") + ("" if self.expected.endswith("?") else ".")


@cache
def load(name: str) -> dict[str, Any]:
    """The schema `schemas/NAME.schema.json`; raises FileNotFoundError when the package has none of that name."""
    schema: dict[str, Any] = json.loads((paths.schemas() / f"{name}.schema.json").read_text(encoding="utf-8"))
    return schema


def exists(name: str) -> bool:
    """Whether the package has a schema of that name; an adapter from elsewhere brings none."""
    return (paths.schemas() / f"{name}.schema.json").is_file()


def check(data: Mapping[str, Any], schema_name: str) -> list[Violation]:
    """What the schema refuses in `data`, the first complaint about each value; empty when all is well."""
    first: dict[Path, Violation] = {}
    for error in _validator(schema_name).iter_errors(data):
        for violation in _violations(error):
            first.setdefault(violation.path, violation)
    return list(first.values())


def findings(
    violations: list[Violation],
    document: Document,
    origins: Mapping[str, str] | None = None,
    *,
    unknown_keys: Severity = "error",
) -> tuple[Finding, ...]:
    """`violations` at the user's keys and lines; `unknown_keys` says how much a key that nothing reads matters.

    `origins` maps canonical dotted keys to the user's; without it the data that was checked is the user's own.
    """
    return tuple(_finding(violation, document, origins, unknown_keys) for violation in violations)


def _finding(violation: Violation, document: Document, origins: Mapping[str, str] | None, unknown_keys: Severity) -> Finding:
    severity: Severity = unknown_keys if violation.id == "unknown-key" else "error"
    canonical = dotted(violation.path)
    if origins is None:
        return document.finding(violation.id, severity, violation.message, key=canonical or None, fix=violation.fix)
    key = origins.get(canonical) or _around(violation.path, origins)
    known = canonical in origins or (violation.id == "invalid-value" and key)
    # A fix is left out: it would name canonical words, which the user's trainer may not know.
    return document.finding(
        violation.id, severity, violation.sentence(key if known and key else canonical or "the top level"), key=key
    )


def _around(path: Path, origins: Mapping[str, str]) -> str | None:
    """The user's key that became the nearest value around `path`: `gc-rate` for `train.checkpointing.fraction`."""
    parents = (origins.get(dotted(path[:length])) for length in range(len(path) - 1, 0, -1))
    return next((key for key in parents if key), None)


@cache
def _validator(name: str) -> Any:
    from jsonschema import validators

    draft: Any = validators.Draft202012Validator
    extend: Any = validators.extend
    types = draft.TYPE_CHECKER.redefine_many({
        "integer": lambda _, value: _is_integer(value),
        "number": lambda _, value: _is_number(value),
        "object": lambda _, value: isinstance(value, Mapping),
        "array": lambda _, value: isinstance(value, list | tuple),
    })  # fmt: skip
    return extend(draft, {"required": _required}, type_checker=types)(load(name))


def _required(_validator: Any, keys: list[str], instance: Any, _schema: Any) -> Iterator[Any]:
    """One error a missing key, whose message is that key."""
    from jsonschema import ValidationError

    if isinstance(instance, Mapping):
        yield from (ValidationError(key) for key in keys if key not in instance)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _violations(error: Any) -> Iterator[Violation]:
    """An error of jsonschema as ours; of alternatives, the one whose kind of value was given speaks."""
    if error.validator in ("anyOf", "oneOf"):
        near = _nearest_alternative(error)
        if near:
            for inner in near:
                yield from _violations(inner)
            return
    path = tuple(error.absolute_path)
    yield from _PROBLEMS.get(error.validator, _invalid)(error, path)


def _nearest_alternative(error: Any) -> list[Any]:
    """The errors of the one alternative that takes this kind of value, or these keys; none when several do."""
    branches: dict[int, list[Any]] = {}
    for inner in error.context:
        branches.setdefault(inner.schema_path[0], []).append(inner)
    for strangers in ({"type", "const", "required", "additionalProperties"}, {"type", "const"}):
        near = [e for e in branches.values() if not any(i.validator in strangers and not i.path for i in e)]
        if len(near) == 1:
            return near[0]
    return []


def _invalid(error: Any, path: Path) -> Iterator[Violation]:
    yield Violation(
        id="invalid-value",
        path=path,
        problem=f"is {_spelled(error.instance)}",
        expected=f"expected {expected(error.schema)}",
    )


def _enum(error: Any, path: Path) -> Iterator[Violation]:
    value, legal = error.instance, error.validator_value
    near = did_you_mean(value, [str(option) for option in legal if option is not None]) if isinstance(value, str) else None
    yield Violation(
        id="invalid-value",
        path=path,
        problem=f"is {_spelled(value)}",
        expected=f"expected {_one_of(legal)}" + (f"; did you mean {near}?" if near else ""),
        fix=f"set it to {near}" if near else None,
    )


def _unknown(error: Any, path: Path) -> Iterator[Violation]:
    from re import search

    known = list(error.schema.get("properties", {}))
    patterns = error.schema.get("patternProperties", {})
    for key in error.instance:
        if key in known or any(search(pattern, str(key)) for pattern in patterns):
            continue
        near = did_you_mean(str(key), known)
        yield Violation(
            id="unknown-key",
            path=(*path, key),
            problem="is not a key that is read",
            expected=f"did you mean {near}?" if near else f"expected {shorten(_one_of(known), 200)}",
            fix=f"rename it to {near}" if near else None,
        )


def _missing(error: Any, path: Path) -> Iterator[Violation]:
    key = error.message
    schema = error.schema.get("properties", {}).get(key, {})
    yield Violation(id="missing-key", path=(*path, key), problem="is missing", expected=f"expected {expected(schema)}")


_PROBLEMS: Mapping[str, Callable[[Any, Path], Iterator[Violation]]] = {
    "enum": _enum,
    "additionalProperties": _unknown,
    "required": _missing,
}


def expected(schema: Mapping[str, Any]) -> str:
    """What `schema` takes, in words: "a whole number of at least 1", "lora or full", "a list of names"."""
    if "enum" in schema:
        return _one_of(schema["enum"])
    if "const" in schema:
        return _literal(schema["const"])
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return _or([expected(option) for option in schema[several]])
    types = schema.get("type", [])
    return _or([_EXPECTED[name](schema) for name in ([types] if isinstance(types, str) else types)]) or "a value"


def _quantity(noun: str) -> Callable[[Mapping[str, Any]], str]:
    def words(schema: Mapping[str, Any]) -> str:
        low, above, high = (schema.get(key) for key in ("minimum", "exclusiveMinimum", "maximum"))
        bounds = [
            f"of at least {low:,}" if low is not None else "",
            f"above {above:,}" if above is not None else "",
            f"at most {high:,}" if high is not None else "",
        ]
        both = low is not None and high is not None
        limits = f"from {low:,} to {high:,}" if both else " and ".join(filter(None, bounds))
        step = f", a multiple of {schema['multipleOf']}" if "multipleOf" in schema else ""
        return f"{noun} {limits}".strip() + step

    return words


def _list(schema: Mapping[str, Any]) -> str:
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    count = f"{least} values" if least == most else f"{least} or more values" if least else "values"
    items = schema.get("items")
    return f"a list of {count}" + (f", each {expected(items)}" if isinstance(items, dict) else "")


def _group(schema: Mapping[str, Any]) -> str:
    keys = list(schema.get("properties", {}))
    return f"a group of keys ({', '.join(keys)})" if 0 < len(keys) <= 12 else "a group of keys"


_EXPECTED: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "integer": _quantity("a whole number"),
    "number": _quantity("a number"),
    "string": lambda schema: "a text that is not empty" if schema.get("minLength") else "a text",
    "boolean": lambda _: "true or false",
    "null": lambda _: "null",
    "array": _list,
    "object": _group,
}


def _one_of(values: list[Any]) -> str:
    words = [_literal(value) for value in values]
    return ("one of " if len(words) > 2 else "") + _or(words)


def _or(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else "".join(words)


def _literal(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _spelled(value: object) -> str:
    """`value` and what kind it is: "'four' (a string)", "-1", "nan (not a finite number)"."""
    if isinstance(value, Mapping):
        return f"{kind(value)} ({shorten(', '.join(map(str, value)))})" if value else "an empty group of keys"
    if isinstance(value, list | tuple):
        return f"{kind(value)} of {len(value)}" if value else "an empty list"
    if value is None or isinstance(value, bool):
        return _literal(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} (not a finite number)"
    text = shorten(repr(value))
    if isinstance(value, str):
        return f"{text} (a string)"
    return f"{text} (not written as a whole number)" if isinstance(value, float) and value.is_integer() else text
