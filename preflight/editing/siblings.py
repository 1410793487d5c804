"""Where a new key goes among those that are there."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

ALIKE = 0.5  # difflib's ratio from which two keys are taken to be about one thing: cpu_offload_params and cpu_offload_vae


def neighbour(key: str, keys: Sequence[str], scalars: Sequence[bool]) -> int:
    """The index of the key after which `key` goes: the one most like it, else the last that holds a plain value, else the last."""
    likeness = [SequenceMatcher(None, key, other).ratio() if scalar else 0.0 for other, scalar in zip(keys, scalars, strict=True)]
    best = max(range(len(keys)), key=lambda index: likeness[index])
    if likeness[best] >= ALIKE:
        return best
    return max((index for index, scalar in enumerate(scalars) if scalar), default=len(keys) - 1)


def break_of(text: str, at: int) -> str:
    """The line break that the text uses at the end of the line of `at`, else the first one it has, else a line feed."""
    for start in (at, 0):
        end = text.find("\n", start)
        if end >= 0:
            return "\r\n" if end > 0 and text[end - 1] == "\r" else "\n"
    return "\n"


def line_end(text: str, at: int) -> int:
    """The place behind the line break of the line of `at`, or the end of the text."""
    end = text.find("\n", at)
    return len(text) if end < 0 else end + 1
