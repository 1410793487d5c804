"""What one rank keeps of the model between steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from preflight.job import Job
from preflight.memory.model import Model
from preflight.tape.tensor import Parameter


@dataclass(frozen=True, kw_only=True, slots=True)
class Rank:
    """Bytes as the allocator hands them out, and what this rank's optimizer updates.

    `trained` and `frozen` (with the network's own buffers) are the weights that stay, `block` the largest repeated block's part of
    them. `buffers` are there between steps for communication, `gathered` are other ranks' weights that it holds during a step.
    """

    trainable: tuple[Parameter, ...]
    trained: int
    frozen: int
    block: int
    buffers: int = 0
    gathered: int = 0

    @property
    def trainable_bytes(self) -> int:
        return total(self.trainable)


def whole(job: Job, model: Model) -> Rank:
    """Every rank has everything; what is frozen may be in host memory."""
    frozen = 0 if job.spec.offload.parameters else model.frozen_bytes
    return Rank(trainable=model.trainable, trained=model.trainable_bytes, frozen=frozen, block=model.block_bytes)


def total(parameters: Iterable[Parameter]) -> int:
    return sum(p.nbytes * p.copies for p in parameters)


def piece(shape: tuple[int, ...], dtype: str, copies: int = 1) -> Parameter:
    """A rank's part of a parameter."""
    part = Parameter(shape, dtype)
    part.copies = copies
    return part
