"""What every network family offers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from preflight.tape.meter import Size
from preflight.tape.module import Blocks, Checkpointing, Module
from preflight.tape.tensor import Tape, Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """One GPU's share of a step, in samples, pixels, frames and text tokens; numpy arrays ask for many shapes at once.

    `sequence` GPUs share the tokens of each sample between them.
    """

    batch: Size
    height: Size
    width: Size
    frames: Size = 1
    text_tokens: Size = 0
    sequence: int = 1


class NotModelled(Exception):  # noqa: N818  # a fact about the config, which the memory model turns into a finding
    """The family exists, but not what these dimensions ask of it; the message is one clause without a full stop."""


def constructor_arguments(dims: Mapping[str, Any], defaults: Mapping[str, Any], constructor: str) -> dict[str, Any]:
    """`dims` with the defaults of `constructor` for the rest; a default of `...` has to be given.

    Raises NotModelled for an argument that the constructor does not have, and for one that is missing.
    """
    for name in dims:
        if name not in defaults:
            raise NotModelled(f"{constructor} has no argument {name!r}")
    arguments: dict[str, Any] = {**defaults, **dims}
    for name, value in arguments.items():
        if value is ...:
            raise NotModelled(f"{constructor} needs the argument {name!r}")
    return arguments


def check_modelled(arguments: Mapping[str, Any], modelled: Mapping[str, Sequence[Any]], constructor: str) -> None:
    """Raise NotModelled for the first argument whose value is not among those that are modelled."""
    for name, values in modelled.items():
        if arguments[name] not in values:
            listed = ", ".join(repr(value) for value in values)
            raise NotModelled(f"{name} {arguments[name]!r} of {constructor} is not modelled, only {listed}")


class Network(Module):
    """A family: built from the catalog's dimensions, run once per step.

    `divides_sequence` says that its forward pass heeds `Shape.sequence`; `guidance_doubles` that its pipeline runs the conditioned
    and the unconditioned half of classifier-free guidance as one batch; `in_order` that its lists of blocks run one after
    another, as they are listed, so that it can be cut between any two; `each_frame` that its forward pass goes from frame to frame,
    so that one walk is of one number of them.
    """

    divides_sequence = False
    in_order = True
    each_frame = False
    guidance_doubles = True

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        raise NotImplementedError

    def bind(self, tape: Tape) -> None:
        super().bind(tape)
        self._parallel = tape.parallel

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._parallel.around(self, self.forward)(*arguments, **options)

    @staticmethod
    def pixel_step(dims: Mapping[str, Any]) -> int:
        """Height and width come in multiples of this, where the catalog does not fix it."""
        del dims
        return 1

    def first_pass(self, shape: Shape) -> Size:
        """Bytes that the first forward pass of all takes, and gives back, before it computes anything."""
        del shape
        return 0

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        """Run the forward pass on inputs of `shape` in `dtype` and return the training loss."""
        raise NotImplementedError

    def block_modules(self) -> Iterator[Module]:
        """The repeated blocks that are walked, one of each kind and position."""
        for _, module, _ in self.modules():
            if isinstance(module, Blocks):
                yield from (block for _, block, _ in module.children())
