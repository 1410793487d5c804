"""What the card allows: the two rules of the gate."""

from __future__ import annotations

from dataclasses import dataclass

from preflight import catalog
from preflight.memory import overhead
from preflight.spec import Parallel
from preflight.tape.meter import Size


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Bytes of one card: all of it, what torch's allocator can get, what a run may need and still fit, and activations' share."""

    capacity: int
    reachable: int
    usable: int
    activations: int

    def hold(self, peak: Size, activations: Size) -> Size:
        """Whether both rules are met, element by element where the sizes are arrays."""
        return (peak <= self.usable) & (activations <= self.activations)


def limits(gpu: catalog.Gpu, parallel: Parallel, threshold: float) -> Limits:
    """The rules for `gpu`; activations may take `threshold` of the whole card (the DiffSR rule: 0.7)."""
    reachable = gpu.memory_bytes - overhead.outside(gpu, parallel)
    return Limits(
        capacity=gpu.memory_bytes,
        reachable=reachable,
        usable=overhead.usable(gpu, parallel),
        activations=int(gpu.memory_bytes * threshold),
    )
