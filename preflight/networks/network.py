"""What every network family offers."""

from __future__ import annotations

from dataclasses import dataclass

from preflight.tape.meter import Size
from preflight.tape.module import Module
from preflight.tape.tensor import Tape, Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """One GPU's share of a step, in samples, pixels, frames and text tokens; numpy arrays ask for many shapes at once."""

    batch: Size
    height: Size
    width: Size
    frames: Size = 1
    text_tokens: Size = 0


class Network(Module):
    """A family: built from the catalog's dimensions, run once per step."""

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        """Run the forward pass on inputs of `shape` in `dtype` and return the training loss."""
        raise NotImplementedError
