"""`--vary NAME=VALUES`: what is varied, and over which values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from preflight.finding import ConfigError, Finding, did_you_mean
from preflight.spec import Spec

MOST_POINTS = 2_000_000
LARGEST = 2**31 - 1  # as torch's kernels index
# Width and height by the names that people use; 480p is Wan's own (wan/configs/__init__.py)
NAMED = {"480p": (832, 480), "540p": (960, 544), "720p": (1280, 720), "1080p": (1920, 1088)}

RANGE = re.compile(r"(\d+)\.\.(\d+)(?::(\d+))?")
SIZE = re.compile(r"(\d+)[x×*](\d+)")

Value = Any  # a number, true or false, or (width, height)


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """A name and its values, in ascending order, each once."""

    name: str
    values: tuple[Value, ...]

    @property
    def is_shape(self) -> bool:
        """Whether one walk of the step takes all the values."""
        return self.name in SHAPES

    def shown(self, index: int) -> str:
        value = self.values[index]
        return f"{value[0]}x{value[1]}" if isinstance(value, tuple) else str(value).lower()


def axis(text: str) -> Axis:
    """`batch=1,2,4`, `frames=17..81:4` or `resolution=480p,1024x1024`; raises ConfigError with one sentence."""
    name, equals, listed = text.partition("=")
    if not equals or not listed.strip():
        raise wrong(f"argument --vary: {text!r} is not NAME=VALUES, such as batch=1,2,4")
    if name not in READERS:
        near = did_you_mean(name, tuple(READERS))
        hint = f"did you mean {near}?" if near else f"expected one of {', '.join(READERS)}"
        raise wrong(f"argument --vary: {name!r} is nothing that a sweep varies; {hint}")
    values = [value for word in listed.split(",") for value in READERS[name](word.strip(), name)]
    return Axis(name=name, values=tuple(sorted(set(values), key=_order)))


def check(axes: Sequence[Axis], gpus: int) -> None:
    """Raises ConfigError for an axis that is given twice, resolution beside its own sides, and more points than are worked out."""
    names = [one.name for one in axes]
    for name in names:
        if names.count(name) > 1:
            raise wrong(f"argument --vary: {name} is given twice; give all its values at once")
    if "resolution" in names and {"height", "width"} & set(names):
        raise wrong("argument --vary: resolution is height and width; give either")
    points = prod(len(one.values) for one in axes) * gpus
    if points > MOST_POINTS:
        raise wrong(f"argument --vary: these are {points:,} points, more than the {MOST_POINTS:,} that are worked out at once")


def wrong(message: str) -> ConfigError:
    return ConfigError(Finding(id="command-line", severity="error", message=message))


def _order(value: Value) -> tuple[int, Any]:
    return (value[0] * value[1], value) if isinstance(value, tuple) else (int(value), value)


def _numbers(word: str, name: str) -> list[int]:
    found = RANGE.fullmatch(word)
    if found:
        low, high, step = int(found[1]), int(found[2]), int(found[3] or 1)
        if step < 1 or high < low or (high - low) // step > MOST_POINTS:
            raise wrong(f"argument --vary: {name}={word} is no range; expected FIRST..LAST or FIRST..LAST:STEP, such as 17..81:4")
        return [_number(str(value), name) for value in range(low, high + 1, step)]
    return [_number(word, name)]


def _number(word: str, name: str) -> int:
    number = int(word) if re.fullmatch(r"\d{1,10}", word) else 0
    if not 1 <= number <= LARGEST:
        raise wrong(f"argument --vary: {name} is {word!r}; expected whole numbers from 1 to {LARGEST:,}")
    return number


def _sizes(word: str, name: str) -> list[tuple[int, int]]:
    if word.lower() in NAMED:
        return [NAMED[word.lower()]]
    found = SIZE.fullmatch(word)
    if not found:
        raise wrong(f"argument --vary: {name} is {word!r}; expected WIDTHxHEIGHT or one of {', '.join(NAMED)}")
    return [(_number(found[1], name), _number(found[2], name))]


def _switches(word: str, name: str) -> list[bool]:
    if word.lower() not in ("true", "false"):
        raise wrong(f"argument --vary: {name} is {word!r}; expected true or false")
    return [word.lower() == "true"]


def _rank(spec: Spec, rank: int) -> Spec:
    lora = spec.train.lora
    if lora is None:
        raise wrong("argument --vary: rank is varied, but this config trains no LoRA")
    return replace(spec, train=replace(spec.train, lora=replace(lora, rank=rank)))


def _gpus(spec: Spec, gpus: int) -> Spec:
    """So many GPUs; several of them that nothing divides see different samples."""
    strategy = "ddp" if spec.parallel.strategy == "none" and gpus > 1 else spec.parallel.strategy
    return replace(spec, parallel=replace(spec.parallel, gpus=gpus, strategy=strategy))


#: How a value is put into the shape of a step: the dimensions it gives.
SHAPES: Mapping[str, tuple[str, ...]] = {
    "batch": ("batch",),
    "frames": ("frames",),
    "height": ("height",),
    "width": ("width",),
    "resolution": ("width", "height"),
}
#: How a value is put into the spec, for what each needs a walk of its own.
CHANGES: Mapping[str, Callable[[Spec, Any], Spec]] = {
    "accumulation": lambda spec, value: replace(spec, train=replace(spec.train, accumulation=value)),
    "rank": _rank,
    "checkpointing": lambda spec, value: replace(spec, train=replace(spec.train, checkpointing=value)),
    "gpus": _gpus,
    "sequence": lambda spec, value: replace(spec, parallel=replace(spec.parallel, sequence=value)),
    "blocks": lambda spec, value: replace(spec, offload=replace(spec.offload, blocks=value)),
}
READERS: Mapping[str, Callable[[str, str], Sequence[Value]]] = {
    **dict.fromkeys(("batch", "frames", "height", "width"), _numbers),
    "resolution": _sizes,
    **dict.fromkeys(CHANGES, _numbers),
    "checkpointing": _switches,
}
