"""Numbers as people type and read them on the planning commands."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping
from functools import partial
from math import floor, isfinite, log10
from typing import Any, TypeVar

T = TypeVar("T")


def positive(meaning: str, largest: float) -> Callable[[str], float]:
    """A reader of numbers above 0 and at most `largest`; its complaint is one sentence that says what was `meaning`."""
    return partial(_positive, meaning, largest)


def whole(meaning: str, largest: int) -> Callable[[str], int]:
    """The same for whole numbers from 1 on."""
    return partial(_whole, meaning, largest)


def share(meaning: str) -> Callable[[str], float]:
    """A reader of shares: above 0 and at most 1."""
    return partial(_positive, meaning, 1.0)


def listed(reader: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """A reader of several such values with commas between them."""
    return partial(_listed, reader)


def named(reader: Callable[[str], T], example: str) -> Callable[[str], tuple[str, T]]:
    """A reader of NAME=VALUE."""
    return partial(_named, reader, example)


def _positive(meaning: str, largest: float, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0 < number <= largest:  # NaN compares false, so it ends here too
        raise ArgumentTypeError(f"{_short(text)} is not {meaning}: a number above 0 and at most {plain(largest)}")
    return number


def _whole(meaning: str, largest: int, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= largest:
        raise ArgumentTypeError(f"{_short(text)} is not {meaning}: a whole number from 1 to {largest:,}")
    return number


def _listed(reader: Callable[[str], T], text: str) -> tuple[T, ...]:
    return tuple(reader(part.strip()) for part in text.split(","))


def _named(reader: Callable[[str], T], example: str, text: str) -> tuple[str, T]:
    name, sign, value = text.partition("=")
    if not name.strip() or not sign:
        raise ArgumentTypeError(f"{_short(text)} is not NAME=VALUE, such as {example}")
    return name.strip(), reader(value)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")


def plain(number: float) -> str:
    """A whole number without its point, with separators: "1,000,000"; others as they are: "0.7"."""
    return f"{number:,.0f}" if number == int(number) and number < 1e15 else f"{number:g}"


def rounded(number: float, digits: int) -> float:
    """`number` to `digits` significant digits."""
    return float(f"{number:.{digits}g}")


def counted(number: float) -> str:
    """A count with one decimal: "616.3M", "12.3B"."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= size:
            return f"{number / size:,.1f}{letter}"
    return f"{number:,.0f}"


def scientific(number: float) -> str:
    """Three digits and a power of ten, in thousands below 10**21: "708e15", "1.08e25"."""
    if number <= 0 or not isfinite(number):
        return f"{number:g}"
    number = rounded(number, 3)
    power = floor(log10(number))
    step = power if power >= 21 or power < 0 else power // 3 * 3
    return f"{number / 10.0**step:.3g}" + (f"e{step}" if step else "")


def duration(hours: float) -> str:
    """Hours as a person reads them: "40.0 h (1.7 days)", "12 min", "3.2 s"."""
    if hours >= 1:
        return f"{hours:,.1f} h ({hours / 24:,.1f} days)"
    return f"{hours * 60:,.1f} min" if hours * 60 >= 1 else f"{hours * 3600:,.3g} s"


def money(dollars: float) -> str:
    """Dollars: "$640", with cents below ten: "$1.25"."""
    return f"${dollars:,.0f}" if dollars >= 10 else f"${dollars:,.2f}"


def lines(title: str, facts: Mapping[str, str], width: int = 21) -> list[str]:
    """A section of a plan: its title in brackets, and one fact a line."""
    return [f"[{title}]", *(f"  {name + ':':<{width}}{value}" for name, value in facts.items()), ""]


def dumped(document: Mapping[str, Any]) -> str:
    """The document as JSON in ASCII, ending in a newline."""
    import json

    return json.dumps(document, indent=2, allow_nan=False) + "\n"
