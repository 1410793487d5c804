"""Named pairs: a user's value read into the canonical one, and the canonical one written back in the user's notation."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final


class Silent(Enum):
    """What a value says of a setting that it says nothing of."""

    SILENT = "silent"


SILENT: Final = Silent.SILENT

#: Above these a value is a slip of the keyboard, and products of it leave 64 bits.
SIDE, COUNT, RANKS, STEPS = 65_536, 1_000_000, 100_000, 10**9


class RefusedError(ValueError):
    """`expected` completes the sentence "…; expected"."""

    def __init__(self, expected: str, why: str = "") -> None:
        super().__init__(expected)
        self.expected, self.why = expected, why


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """`read` raises RefusedError; `write` gets the canonical value and the user's present one, and may answer SILENT.

    A conversion of a field with several paths reads to and writes from a tuple, one value a path.
    `schema` is the JSON Schema of the values it reads.
    """

    name: str
    read: Callable[[Any], Any]
    write: Callable[[Any, Any], Any]
    schema: Mapping[str, Any] = field(default_factory=dict)


def show(value: Any) -> str:
    """`value` as a config spells it, on one line and not longer than 60 characters."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "empty"}[value]
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a number of more than 30 digits"
    text = " ".join((f'"{value}"' if isinstance(value, str) else str(value)).split())
    return text if len(text) <= 60 else text[:59] + "…"


def _number(value: Any, expected: str) -> int | float:
    if isinstance(value, bool):
        raise RefusedError(expected, "a boolean")
    if isinstance(value, str):
        why = "text" if re.fullmatch(r"\s*[-+]?[\d.]+([eE][-+]?\d+)?\s*", value) is None else "a number in quotes"
        raise RefusedError(expected, why)
    if not isinstance(value, int | float):
        raise RefusedError(expected, "not a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise RefusedError(expected, "not a finite number")
    return value


def whole(low: int = 1, high: int = COUNT, *, multiple: int = 1) -> Conversion:
    """A whole number in [low, high]; text and booleans are not numbers."""
    expected = f"a whole number from {low:,} to {high:,}" + (f", a multiple of {multiple}" if multiple > 1 else "")

    def read(value: Any) -> int:
        number = _number(value, expected)
        if not isinstance(number, int):
            raise RefusedError(expected, "not whole")
        if not low <= number <= high or number % multiple:
            raise RefusedError(expected)
        return number

    schema: dict[str, Any] = {"type": "integer", "minimum": low, "maximum": high}
    return Conversion(
        name="whole number",
        read=read,
        write=lambda value, _: value,
        schema=schema if multiple == 1 else {**schema, "multipleOf": multiple},
    )


def real(low: float = 0.0, high: float = 1e12) -> Conversion:
    """A finite number in [low, high]."""
    expected = f"a number from {low:g} to {high:g}"

    def read(value: Any) -> float:
        number = _number(value, expected)
        if not low <= number <= high:
            raise RefusedError(expected)
        return number

    schema = {"type": "number", "minimum": low, "maximum": high}
    return Conversion(name="number", read=read, write=lambda value, _: value, schema=schema)


YES = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def flag(yes: Any = True, no: Any = False) -> Conversion:
    """true/false, yes/no, on/off, 1/0 in words or numbers; `yes` and `no` are what they mean."""
    expected = "true or false"

    def read(value: Any) -> Any:
        answer = YES.get(str(value).strip().lower()) if isinstance(value, bool | int | str) else None
        if answer is None:
            raise RefusedError(expected)
        return yes if answer else no

    def write(value: Any, raw: Any) -> Any:
        if value not in [option for option in (yes, no) if option is not SILENT]:
            return SILENT
        answer = value == yes
        if isinstance(raw, int) and not isinstance(raw, bool):
            return int(answer)
        if isinstance(raw, str):
            pairs = (("true", "false"), ("yes", "no"), ("on", "off"), ("1", "0"))
            pair = next(pair for pair in pairs if raw.strip().lower() in pair)
            return pair[0] if answer else pair[1]
        return answer

    schema = {"anyOf": [{"type": "boolean"}, {"enum": [0, 1]}, _one_of(YES)]}
    return Conversion(name="boolean", read=read, write=write, schema=schema)


def _one_of(words: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    """Any of `words`, in any case."""
    anycase = ("".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else re.escape(c) for c in word) for word in words)
    return {"type": "string", "pattern": f"^({'|'.join(anycase)})$"}


def choice(what: str, words: Mapping[str, Any], *, exact: bool = False) -> Conversion:
    """One of `words`; unless `exact`, in any case. The first word of a meaning is the one that is written."""
    spelled = ", ".join(dict.fromkeys(words))

    def read(value: Any) -> Any:
        word = _word(value, exact=exact)
        if word is None or word not in words:
            raise RefusedError(f"one of {spelled}")
        return words[word]

    def write(value: Any, raw: Any) -> Any:
        present = None if raw is None else _word(raw, exact=exact)
        if present is not None and present in words and words[present] == value:
            return raw
        word = next((word for word, meaning in words.items() if meaning == value), SILENT)
        return int(word) if isinstance(word, str) and word.isdigit() and not isinstance(raw, str) else word

    schema = {"enum": list(words)} if exact else {"anyOf": [_one_of(words), {"type": "boolean"}, {"type": "integer"}]}
    return Conversion(name=what, read=read, write=write, schema=schema)


def _word(value: Any, *, exact: bool) -> str | None:
    """The word that `value` stands for: YAML reads a bare `no` as false."""
    if isinstance(value, bool):
        return "true" if value else "no"
    if value is None:
        return "none"
    if not isinstance(value, str | int):
        return None
    return str(value) if exact else str(value).strip().lower()


def text(what: str) -> Conversion:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise RefusedError(what)
        return value.strip()

    schema = {"type": "string", "minLength": 1}
    return Conversion(name=what, read=read, write=lambda value, _: value, schema=schema)


def size(order: str, *, named: Mapping[str, tuple[int, int]] | None = None, square: bool = False) -> Conversion:
    """Two sides in pixels: "1280*720", "1280x720" or [1280, 720]; `order` "wh" or "hw" says which comes first in the config.

    Reads to (width, height) whatever the order, `named` sizes are words ("720p"), and `square` allows one number for both.
    """
    example = "1280*720" if order == "wh" else "720*1280"
    axes = "width and height" if order == "wh" else "height and width"
    expected = f'{axes} in pixels, such as "{example}" or [{example.replace("*", ", ")}], each from 1 to {SIDE:,}'
    expected += ", or one number for both" if square else ""
    words = named or {}

    def read(value: Any) -> tuple[int, int]:
        if isinstance(value, str) and value.strip().lower() in words:
            return words[value.strip().lower()]
        parts: Any = value
        if isinstance(value, str) and (match := re.fullmatch(r"\s*([0-9]{1,9})\s*[*xX×,\s]\s*([0-9]{1,9})\s*", value)):
            parts = [int(side) for side in match.groups()]
        if square and isinstance(value, int) and not isinstance(value, bool):
            parts = [value, value]
        if square and isinstance(parts, list) and len(parts) == 1:
            parts = parts * 2
        if not isinstance(parts, list) or len(parts) != 2:
            raise RefusedError(expected)
        first, second = (whole(1, SIDE).read(side) for side in parts)
        return (first, second) if order == "wh" else (second, first)

    def write(value: tuple[int, int], raw: Any) -> Any:
        sides = list(value if order == "wh" else value[::-1])
        if isinstance(raw, list) and len(raw) == 1 and sides[0] == sides[1]:
            return sides[:1]
        if isinstance(raw, list):
            return sides
        if isinstance(raw, int):
            return sides[0] if sides[0] == sides[1] else sides
        separator = re.search(r"\d(\s*[*xX×,\s]\s*)\d", raw) if isinstance(raw, str) else None
        if separator:
            return f"{sides[0]}{separator[1]}{sides[1]}"
        return sides if square else f"{sides[0]}*{sides[1]}"

    sides = {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": SIDE}, "maxItems": 2}
    options: list[dict[str, Any]] = [{"type": "string"}, {**sides, "minItems": 1 if square else 2}]
    if square:
        options.append({"type": "integer", "minimum": 1, "maximum": SIDE})
    return Conversion(name=f"size {axes}", read=read, write=write, schema={"anyOf": options})


def words(what: str, there: Mapping[str, Sequence[str]]) -> Conversion:
    """A list of names, or one string with commas or spaces; `there` translates a trainer's name into ours and back.

    Names that `there` does not hold stay as they are. Reads to a list without repetitions.
    """
    expected = f'{what}: a list such as [q, k, v, o], or one string such as "q,k,v,o"'

    def read(value: Any) -> list[str]:
        names = re.split(r"[,\s]+", value.strip()) if isinstance(value, str) else value
        if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
            raise RefusedError(expected)
        return list(dict.fromkeys(ours for name in names for ours in there.get(name, (name,))))

    def write(value: Sequence[str], raw: Any) -> Any:
        present = re.split(r"[,\s]+", raw.strip()) if isinstance(raw, str) else list(raw or ())
        theirs = _untranslate(value, there) if any(name in there for name in present) else list(value)
        return ",".join(theirs) if isinstance(raw, str) else theirs

    schema = {"anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    return Conversion(name=what, read=read, write=write, schema=schema)


def _untranslate(ours: Sequence[str], there: Mapping[str, Sequence[str]]) -> list[str]:
    left, theirs = list(ours), []
    for name, meaning in there.items():
        if all(word in left for word in meaning):
            theirs.append(name)
            left = [word for word in left if word not in meaning]
    return theirs + left


def flag_text(inner: Conversion) -> Conversion:
    """`inner` for a command line's values: "8" is 8 there, "256 256" is [256, 256]."""

    def scalar(word: str) -> Any:
        if re.fullmatch(r"[-+]?[0-9]{1,18}", word):
            return int(word)
        return float(word) if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", word) else word

    def read(value: Any) -> Any:
        if isinstance(value, str) and value.strip():
            parts = [scalar(word) for word in value.split()]
            value = parts[0] if len(parts) == 1 else parts
        return inner.read(value)

    def write(value: Any, raw: Any) -> Any:
        plain = raw if not isinstance(raw, str) else None
        written = inner.write(value, plain)
        if isinstance(raw, str) and written is not SILENT:
            return " ".join(str(word) for word in written) if isinstance(written, list) else str(written)
        return written

    return Conversion(name=inner.name, read=read, write=write, schema={"anyOf": [inner.schema, {"type": "string"}]})


def gib(*, gb_is_gib: bool) -> Conversion:
    """Memory in GiB: a number, "128 GiB", or "128 GB", which memory modules mean as GiB (JEDEC) and disks as 10**9 bytes."""
    expected = 'an amount of memory such as 128 or "128 GiB"'
    units = {"": 1.0, "gib": 1.0, "g": 1.0, "tib": 1024.0, "gb": 1.0 if gb_is_gib else 1e9 / 2**30}
    units["tb"] = 1024.0 if gb_is_gib else 1e12 / 2**30

    def read(value: Any) -> float:
        amount = value
        if isinstance(value, str) and (match := re.fullmatch(r"\s*([\d.]+)\s*([a-zA-Z]*)\s*", value)):
            unit = match[2].lower()
            if unit not in units or match[1].count(".") > 1 or match[1] == ".":
                raise RefusedError(expected)
            amount = round(float(match[1]) * units[unit], 3)
        number = _number(amount, expected)
        if not 0 < number <= 10**6:
            raise RefusedError(expected)
        return int(number) if number == int(number) else number

    schema = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}
    return Conversion(name="memory in GiB", read=read, write=lambda value, _: value, schema=schema)


DTYPE_WORDS: dict[str, str] = {
    word: ours
    for ours, group in {
        "bf16": ("bf16", "bfloat16", "torch.bfloat16"),
        "fp16": ("fp16", "float16", "torch.float16", "half"),
        "fp32": ("fp32", "float32", "torch.float32", "float"),
    }.items()
    for word in group
}
DTYPE = choice("a dtype", DTYPE_WORDS)
