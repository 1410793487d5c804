"""The 70 % rule by hand: an upper-bound formula for activations, for a network nobody has written a config for yet.

Source: the guide to DiffSR's memory calculator: one layer's activations are batch x sequence x height x width x hidden
x 4 bytes (float32), all layers' are that times their number, and the sum must stay below 70 % of the GPU's memory;
the rest is for weights, gradients and the optimizer. The formula is the rule; it does not know checkpointing or
precision, which the check of a config does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, isqrt

from preflight.units import GIB, gib

THRESHOLD = 0.7
FLOAT32_BYTES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What the formula multiplies; every number is a positive integer."""

    batch: int
    height: int
    width: int
    hidden_dim: int
    num_layers: int
    seq_len: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A shape held against a GPU of `capacity_bytes`, of which activations may take less than `threshold`."""

    shape: Shape
    capacity_bytes: Fraction
    threshold: float = THRESHOLD

    @property
    def limit_bytes(self) -> Fraction:
        """The bytes that activations must stay below, exactly: 0.7 means 7/10, not the nearest binary fraction."""
        return self.capacity_bytes * Fraction(repr(self.threshold))

    @property
    def passes(self) -> bool:
        """Whether the activations are strictly below the limit, as the rule is written."""
        return total_bytes(self.shape) < self.limit_bytes


def bytes_of(gpu_memory_gib: float) -> Fraction:
    """GiB as a person types them, in bytes, exactly."""
    return Fraction(repr(gpu_memory_gib)) * GIB


def layer_bytes(shape: Shape) -> int:
    """One layer's activations in bytes: batch x sequence x height x width x hidden x 4."""
    return shape.batch * shape.seq_len * shape.height * shape.width * shape.hidden_dim * FLOAT32_BYTES


def total_bytes(shape: Shape) -> int:
    """All layers' activations in bytes."""
    return layer_bytes(shape) * shape.num_layers


def largest_batch(rule: Rule) -> int | None:
    """The largest batch that passes with everything else kept, or None when not even a batch of 1 does."""
    one = total_bytes(replace(rule.shape, batch=1))
    return ceil(rule.limit_bytes / one) - 1 or None


def accumulation(batch: int, largest: int) -> int:
    """Into how many equal parts of at most `largest` a batch falls: the fewest, so the steps to accumulate."""
    return next(steps for steps in range(ceil(batch / largest), batch + 1) if batch % steps == 0)


def largest_sides(rule: Rule) -> tuple[int, int] | None:
    """(height, width), both scaled by the square root of limit over total, that pass with the batch kept.

    They are rounded down and lowered together until they pass; None when a side would vanish first.
    """
    shape, share = rule.shape, rule.limit_bytes / total_bytes(rule.shape)
    height, width = (isqrt(int(side * side * share)) for side in (shape.height, shape.width))
    while height > 0 and width > 0:
        if replace(rule, shape=replace(shape, height=height, width=width)).passes:
            return height, width
        height, width = height - 1, width - 1
    return None


def render(rule: Rule) -> str:
    """The answer as a person reads it: the verdict, the arithmetic, and what would pass."""
    shape, total, limit = rule.shape, total_bytes(rule.shape), int(rule.limit_bytes)
    factors = (shape.batch, shape.seq_len, shape.height, shape.width, shape.hidden_dim)
    share, capacity = f"{100 * rule.threshold:g} %", gib(int(rule.capacity_bytes))
    verdict = "fits" if rule.passes else "does not fit"
    lines = [
        f"{verdict}: activations {gib(total)}, must stay below {gib(limit)} ({share} of {capacity})",
        f"  one layer  {gib(layer_bytes(shape))} = {' × '.join(f'{n:,}' for n in factors)} × {FLOAT32_BYTES} bytes",
        f"  {shape.num_layers:,} layers  {gib(total)}",
    ]
    return "\n".join(lines + ([] if rule.passes else _advice(rule))) + "\n"


def _advice(rule: Rule) -> list[str]:
    shape, batch, sides = rule.shape, largest_batch(rule), largest_sides(rule)
    lines = ["what passes:"]
    if batch:
        steps = accumulation(shape.batch, batch)
        kept = f"{shape.batch // steps} accumulated over {steps} steps is an effective {shape.batch}"
        lines.append(f"  batch {shape.batch} → {batch} ({kept})")
    else:
        lines.append("  no batch: even a batch of 1 does not pass")
    if sides:
        lines.append(f"  height × width {shape.height} × {shape.width} → {sides[0]} × {sides[1]}")
    else:
        lines.append("  no resolution: even scaled down to one point it does not pass")
    return lines
