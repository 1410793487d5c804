"""Gradients that leave the backward pass by way of a bucket, this rank keeping its part (DeepSpeed ZeRO)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from preflight.tape.dtypes import BYTES
from preflight.tape.meter import Segment, Size, rounded, somewhere
from preflight.tape.parallel import Parallel
from preflight.tape.tensor import Parameter, Storage, Tape


@dataclass(frozen=True, kw_only=True, slots=True)
class Bucket:
    """Elements of the buffer that gradients are copied into; `buffers` of it are made for each backward pass.

    `early`: a full bucket is reduced during the backward pass and its gradients dropped; else all are reduced after it. `copied`: a
    reduction takes a copy of the bucket. `kept` elements of the reduced gradients stay until the optimizer's step.
    """

    elements: int
    buffers: int
    early: bool
    copied: bool
    kept: int
    dtype: str


class Moment(NamedTuple):
    """A parameter's gradient has come: in which segment of the walk, with how many bytes live, and how many elements it has."""

    segment: Segment
    live: Size
    elements: int


class Reducing(Parallel):
    """deepspeed/runtime/zero/stage_1_and_2.py: setup_buckets, reduce_ipg_grads, independent_gradient_partition_epilogue; stage3.py:
    __add_grad_to_ipg_bucket, __reduce_and_partition_ipg_grads.

    A full bucket is copied at the moment the gradient comes that it has no room for. Which one that is among repeated blocks is
    found once the walk is over. Where more than one bucket is filled the kept part counts from the start of the backward pass, as
    the rank has it whose part comes first.
    """

    def __init__(self, tape: Tape, parameters: Iterable[Parameter], bucket: Bucket) -> None:
        self.tape, self.parameters, self.bucket = tape, tuple(parameters), bucket
        self.transient: list[Storage] = []
        self.moments: list[Moment] = []
        self.kept: Storage | None = None

    def begin(self) -> None:
        bucket = self.bucket
        if bucket.buffers:
            self.transient.append(self._storage(bucket.elements, bucket.buffers))
        if bucket.early and self._elements() >= bucket.elements:
            self._keep()

    def accumulated(self, parameter: Parameter) -> None:
        if self.bucket.early:
            meter = self.tape.meter
            self.moments.append(Moment(meter.segment, meter.live, parameter.numel))
            parameter.grad = None

    def finish(self) -> None:
        if self.kept is None:
            self._copy(self._elements())
            self._keep()
        elif self.bucket.copied:
            self._copies()
        self.transient.clear()
        self.moments.clear()
        super().drop_gradients(self.parameters)

    def keep_gradients(self, tape: Tape, parameters: Iterable[Parameter]) -> None:
        if self.bucket.early:
            self._keep()
        else:  # stage 1 reduces at the last micro-step only
            super().keep_gradients(tape, parameters)

    def drop_gradients(self, parameters: Iterable[Parameter]) -> None:
        super().drop_gradients(parameters)
        self.kept = None

    def _elements(self) -> int:
        return sum(p.numel * p.copies for p in self.parameters)

    def _copies(self) -> None:
        """Hold each copy of a full bucket for a moment, on top of what was live when it was made."""
        now = self.tape.meter.live
        for elements, live in filled(self.moments, self.bucket.elements):
            nbytes = rounded(elements * BYTES[self.bucket.dtype]) + live - now
            if somewhere(nbytes > 0):
                positive = (abs(nbytes) + nbytes) // 2
                Storage(self.tape.meter, positive).keep(gradient=True)

    def _copy(self, elements: int) -> None:
        if self.bucket.copied and self.bucket.early:  # reduced late, each copy takes the place of gradients that it empties
            self.transient.append(self._storage(min(elements, self.bucket.elements), 1))

    def _keep(self) -> None:
        self.kept = self._storage(self.bucket.kept, 1)

    def _storage(self, elements: int, times: int) -> Storage:
        storage = Storage(self.tape.meter, rounded(elements * BYTES[self.bucket.dtype]) * times)
        storage.keep(gradient=True)
        return storage


def filled(moments: Iterable[Moment], room: int) -> Iterator[tuple[int, Size]]:
    """The elements that each bucket of `room` held when it was reduced, and the bytes live then.

    A gradient that has no room ends the bucket before it, and one larger than any bucket is reduced by itself. From one copy of a
    segment to the next the live bytes change by equal steps, up to where the next segment's first gradient comes.
    """
    stretches = [(segment, list(found)) for segment, found in groupby(moments, key=lambda moment: moment.segment)]
    held, live = 0, 0
    for (segment, found), (_, after) in zip(stretches, [*stretches[1:], stretches[-1]], strict=True):
        step = (after[0].live - found[0].live) // segment.copies
        for number in range(segment.copies):
            for moment in found:
                live = moment.live + number * step
                if moment.elements > room:
                    yield moment.elements, live
                    continue
                if held + moment.elements > room:
                    yield held, live
                    held = 0
                held += moment.elements
    yield held, live
