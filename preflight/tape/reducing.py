"""Gradients that leave the backward pass by way of a bucket, this rank keeping its part (DeepSpeed ZeRO)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from preflight.tape.dtypes import BYTES
from preflight.tape.meter import rounded
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


class Reducing(Parallel):
    """deepspeed/runtime/zero/stage_1_and_2.py: setup_buckets, reduce_ipg_grads, independent_gradient_partition_epilogue; stage3.py:
    __add_grad_to_ipg_bucket, __reduce_and_partition_ipg_grads.

    When a bucket is full among repeated blocks cannot be said for all of them at once: where more than one is filled, the copy and
    the kept part count from the start of the backward pass, which is when the busiest rank has them.
    """

    def __init__(self, tape: Tape, parameters: Iterable[Parameter], bucket: Bucket) -> None:
        self.tape, self.parameters, self.bucket = tape, tuple(parameters), bucket
        self.transient: list[Storage] = []
        self.kept: Storage | None = None

    def begin(self) -> None:
        bucket = self.bucket
        if bucket.buffers:
            self.transient.append(self._storage(bucket.elements, bucket.buffers))
        if bucket.early and self._filled() == bucket.elements:
            self._reduce()

    def accumulated(self, parameter: Parameter) -> None:
        if self.bucket.early:
            parameter.grad = None

    def finish(self) -> None:
        if self.kept is None:
            self._reduce()
        self.transient.clear()
        super().drop_gradients(self.parameters)

    def keep_gradients(self, tape: Tape, parameters: Iterable[Parameter]) -> None:
        if self.bucket.early:
            self._keep()
        else:  # stage 1 reduces at the last micro-step only
            super().keep_gradients(tape, parameters)

    def drop_gradients(self, parameters: Iterable[Parameter]) -> None:
        super().drop_gradients(parameters)
        self.kept = None

    def _filled(self) -> int:
        return min(self.bucket.elements, sum(p.numel * p.copies for p in self.parameters))

    def _reduce(self) -> None:
        if self.bucket.copied and self.bucket.early:  # reduced late, each copy takes the place of gradients that it empties
            self.transient.append(self._storage(self._filled(), 1))
        self._keep()

    def _keep(self) -> None:
        self.kept = self._storage(self.bucket.kept, 1)

    def _storage(self, elements: int, times: int) -> Storage:
        storage = Storage(self.tape.meter, rounded(elements * BYTES[self.bucket.dtype]) * times)
        storage.keep(gradient=True)
        return storage
