"""Values of finetrainers' flags and of its two JSON files, and the layers that its patterns choose."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from preflight.adapters import block_layers
from preflight.adapters.conversions import SIDE, SILENT, Conversion, RefusedError, whole
from preflight.adapters.run_values import ANYTHING

#: The network's lists of blocks, by the beginning of its id in the catalog; elsewhere they are diffusers' usual two.
BLOCKS = {"wan": ("blocks",)}
USUAL = ("transformer_blocks", "single_transformer_blocks")
MAX_PATTERN = 1000


def buckets(*, frames: bool) -> Conversion:
    """Buckets of frames, height and width, or of height and width, as a file's lists or as texts such as 49x512x768.

    Reads to the largest of them. What is written keeps those that are no larger.
    """
    sides = 3 if frames else 2
    example = "[[49, 512, 768]] or 49x512x768" if frames else "[[512, 768]] or 512x768"
    expected = f"{'frames, height and width' if frames else 'height and width'} of each bucket, such as {example}"

    def one(bucket: Any) -> tuple[int, ...]:
        parts = bucket.lower().split("x") if isinstance(bucket, str) else bucket
        numbers = [int(part) if isinstance(part, str) and part.strip().isdigit() else part for part in parts or ()]
        if len(numbers) != sides:
            raise RefusedError(expected)
        try:
            return tuple(whole(1, SIDE).read(number) for number in numbers)
        except RefusedError:
            raise RefusedError(expected) from None

    def several(value: Any) -> list[tuple[int, ...]]:
        told = value.split() if isinstance(value, str) else value
        if not isinstance(told, list) or not told:
            raise RefusedError(expected)
        if all(isinstance(part, int) for part in told):  # --set key=[49,480,832]
            told = [told]
        if not all(isinstance(part, str | list) for part in told):
            raise RefusedError(expected)
        return [one(part) for part in told]

    def read(value: Any) -> tuple[int, ...]:
        return max(several(value), key=math.prod)

    def write(value: Sequence[int], raw: Any) -> Any:
        wanted = tuple(value)
        kept = [bucket for bucket in (several(raw) if raw is not None else []) if math.prod(bucket) < math.prod(wanted)]
        chosen = [*dict.fromkeys((*kept, wanted))]
        spelled = isinstance(raw, str) or (isinstance(raw, list) and all(isinstance(part, str) for part in raw)) or raw is None
        if spelled:
            return " ".join("x".join(map(str, bucket)) for bucket in chosen)
        return [list(bucket) for bucket in chosen]

    return Conversion(name="resolution buckets", read=read, write=write, schema={"type": ["array", "string"]})


def prompts() -> Conversion:
    """`--validation_prompts`, of v0.0.1: texts with ::: between them, each with @@@49x512x768 at its end; its largest size."""
    inner = buckets(frames=True)

    def read(value: Any) -> Any:
        text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        sizes = re.findall(r"@@@\s*(\d+x\d+x\d+)", text)
        return inner.read(sizes) if sizes else (SILENT, SILENT, SILENT)

    def write(_value: Any, _raw: Any) -> Any:
        return SILENT

    return Conversion(name="prompts with sizes", read=read, write=write, schema=ANYTHING)


def patterns() -> Conversion:
    """`--target_modules`: one regular expression, or several names."""
    expected = 'a regular expression such as "blocks.*(to_q|to_k|to_v|to_out.0)", or several names of layers'

    def read(value: Any) -> list[str]:
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
            raise RefusedError(expected)
        for name in names:
            _compiled(name, expected)
        return names

    schema = {"anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    return Conversion(name="targets", read=read, write=lambda _value, _raw: SILENT, schema=schema)


def _compiled(pattern: str, expected: str) -> re.Pattern[str]:
    if len(pattern) > MAX_PATTERN:
        raise RefusedError(expected, "longer than any pattern")
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as problem:
        raise RefusedError(expected, f"no regular expression ({problem})") from None


def blocks(network: str) -> tuple[str, ...]:
    """What the network calls its lists of blocks."""
    return next((names for beginning, names in BLOCKS.items() if network.startswith(beginning)), USUAL)


def targets(network: str, told: Sequence[str], *, listed: bool) -> list[str]:
    """The layers in the network's blocks that `told` chooses as peft does: a text is a pattern for whole names, a list is not.

    Empty where nothing matches.
    """
    layers = block_layers.layers(network)
    whole_names = {layer: [f"{name}.0.{layer}" for name in blocks(network)] for layer in layers}
    if len(told) == 1 and not listed:
        pattern = re.compile(told[0])
        return [layer for layer, names in whole_names.items() if any(map(pattern.fullmatch, names))]
    return [layer for layer in layers if any(layer == name or layer.endswith(f".{name}") for name in told)]
