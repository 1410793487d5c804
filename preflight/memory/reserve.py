"""What torch's allocator takes from the card over the first steps of a run: the walk of every block, laid out in its segments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from preflight.job import Job
from preflight.memory import experts, fsdp, overhead
from preflight.memory.allocator import Allocator, Block, OutOfMemory
from preflight.memory.known import known, walk_key
from preflight.memory.model import Model
from preflight.memory.optimizer import Optimizer, rule, state_sizes
from preflight.memory.step import Step, walk
from preflight.networks.network import Shape
from preflight.tape.dtypes import BYTES
from preflight.tape.meter import rounded
from preflight.tape.tensor import Buffer, Parameter
from preflight.tape.trace import Moves

if TYPE_CHECKING:
    from preflight.memory.budget import Resident

STEPS = 2  # states appear at the end of the first step; from the second on nothing new is asked for


def can_lay_out(job: Job) -> bool:
    """Whether the order in which memory is asked for and given back is that of the walk.

    FSDP2's is: its gathers and reductions have streams of their own, with what torch calls inter-stream fragmentation
    (fsdp/_fully_shard/_fsdp_param_group.py), and wait for events. FSDP 1 and DeepSpeed tell the allocator
    which streams use a block (record_stream: fsdp/_flat_param.py; deepspeed/runtime/zero/stage_1_and_2.py, stage3.py), which then
    comes free when the GPU happens to be done with it. Weights and checkpoints' inputs that wait on the host are copied in orders
    that differ from trainer to trainer: of musubi-tuner's two figures with inputs on the host (its PR 537) HunyuanVideo's 29.7 GiB
    would come to 38.9 as Unsloth does it, and to 25.0 as its own create_cpu_offloading_wrapper does.
    """
    parallel, offload = job.spec.parallel, job.spec.offload
    divided = parallel.strategy not in ("none", "dp", "ddp") and not _is_fsdp2(job)
    divided = divided or parallel.tensor > 1 or parallel.pipeline > 1
    return not (divided or job.spec.train.distillation or offload.parameters or offload.blocks or offload.activations)


def _is_fsdp2(job: Job) -> bool:
    return job.spec.parallel.strategy == "fsdp" and job.spec.parallel.fsdp_version != 1


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The run's blocks in the allocator's segments; bytes. `resident` says what lives there besides the network and its states."""

    job: Job
    model: Model
    shape: Shape
    resident: Resident
    states: Optimizer
    step: Step

    @property
    def walked(self) -> bool:
        """Whether the step's order is known: not for many shapes at once."""
        return self.step.recorder is not None

    @property
    def moves(self) -> int:
        """Requests and releases of the steps that are laid out."""
        return STEPS * sum(map(len, self._later))

    @cached_property
    def weights(self) -> int:
        """Taken by what is there before the first step."""
        return self._loaded().reserved

    @cached_property
    def resting(self) -> int:
        """Taken by what is there between steps, as if nothing else had ever been."""
        allocator = self._loaded()
        self._keep_states(allocator)
        return allocator.reserved

    @cached_property
    def steady(self) -> int:
        """Taken by steps from the second on.

        A run whose blocks leave gaps that the card has no room for gives free segments back, and takes what is there. One whose
        blocks alone are more than the card gets a published share for its gaps.
        """
        job, train = self.job, self.job.spec.train
        card = None if job.gpu is None else (job.gpu.memory_bytes, job.gpu.context_bytes)
        rest = (repr(self.resident), self.states, train.optimizer, train.accumulation > 1, job.spec.offload.optimizer)
        walked = walk_key(job, self.model, self.shape)
        return known((walked, card, job.spec.hardware.expandable_segments, rest), self._steady)

    def _steady(self) -> int:
        gpu, parallel = self.job.gpu, self.job.spec.parallel
        if gpu is None:
            return self.after(STEPS)
        least = self.resident.total + max(self.step.forward.peak, self.step.backward.peak)
        reachable = gpu.memory_bytes - overhead.outside(gpu, parallel)
        if least > reachable:  # no such card is there to lay it out on
            return int(least + least * overhead.FRAGMENTATION)
        roomy = self.after(STEPS)
        for limit in (overhead.usable(gpu, parallel), reachable):
            if roomy <= limit:
                break
            with suppress(OutOfMemory):
                if least <= limit:
                    return self.after(STEPS, limit)
        return roomy

    def after(self, steps: int, limit: int | None = None) -> int:
        """Taken after so many optimizer steps, the first ones of the run, on a card of `limit` bytes. Raises OutOfMemory."""
        train, offload = self.job.spec.train, self.job.spec.offload
        allocator = self._loaded(limit)
        gradients: list[Block] = []
        for step in range(steps):
            for _ in range(min(train.accumulation, 2)):
                forward, backward = self._later if gradients and train.accumulation > 1 else self._first
                blocks: list[Block] = []
                allocator.serve(forward, blocks)
                if train.accumulation == 1:
                    _give_back(allocator, gradients)
                allocator.serve(backward, blocks)
                gradients += _live(blocks, forward, backward)
            if not offload.optimizer:
                if step == 0:
                    self._keep_states(allocator)
                self._update(allocator)
            if train.zero_grad == "after-step":
                _give_back(allocator, gradients)
        return allocator.reserved

    def _loaded(self, limit: int | None = None) -> Allocator:
        spec, resident = self.job.spec, self.resident
        allocator = Allocator(expandable=spec.hardware.expandable_segments, limit=limit)
        sizes: list[int] = []
        for tensor in self._held:
            times = experts.trained(spec) if tensor.requires_grad and self.model.adapters else experts.on_gpu(spec)
            sizes += [tensor.nbytes] * (tensor.copies * times)
        sizes += (*resident.encoders.values(), resident.ema, resident.buckets)
        sizes += [overhead.cublas_workspace(self.job.gpu)] * overhead.CUBLAS_HANDLES
        allocator.serve([nbytes for nbytes in sizes if nbytes], [])
        return allocator

    @cached_property
    def _held(self) -> tuple[Parameter, ...]:
        """This rank's parameters and buffers."""
        model = self.model
        if not _is_fsdp2(self.job):
            return model.tensors
        buffers = (tensor for tensor in model.tensors if isinstance(tensor, Buffer))
        return (*fsdp.shards(self.job, model, trained=False), *self._trained, *buffers)

    @cached_property
    def _trained(self) -> tuple[Parameter, ...]:
        return fsdp.shards(self.job, self.model, trained=True) if _is_fsdp2(self.job) else self.model.trainable

    def _keep_states(self, allocator: Allocator) -> None:
        if self.job.spec.offload.optimizer:
            return
        allocator.serve([nbytes for nbytes in self._states() if nbytes], [])

    def _states(self) -> Iterator[int]:
        chosen, times = rule(self.job.spec.train.optimizer), experts.trained(self.job.spec)
        for parameter in self._trained:
            sizes = list(state_sizes(chosen, parameter, "fp32" if self.states.master else None))
            master = [int(rounded(parameter.numel * BYTES["fp32"]))] if self.states.master else []
            for _ in range(parameter.copies * times):
                yield from (*sizes, *master)

    def _update(self, allocator: Allocator) -> None:
        """torch's multi-tensor optimizers copy all parameters at once; the others hold something for one of them."""
        update, whole = self.states.update, rule(self.job.spec.train.optimizer).copies
        if self.states.master or not whole:
            sizes = [update] if update else []
        else:
            sizes = [p.nbytes for p in self._trained for _ in range(whole * p.copies)]
        blocks: list[Block] = []
        allocator.serve(sizes, blocks)
        _give_back(allocator, blocks)

    @cached_property
    def _later(self) -> tuple[Moves, Moves]:
        """A micro-batch that finds gradients there: forward and backward pass."""
        assert self.step.recorder is not None
        forward, backward = self.step.recorder.trace("forward", "backward")
        return forward, backward

    @cached_property
    def _first(self) -> tuple[Moves, Moves]:
        """One that finds none."""
        train = self.job.spec.train
        if train.accumulation == 1:
            return self._later
        alone = replace(self.job.spec, train=replace(train, accumulation=1, zero_grad="after-step"))
        recorder = walk(self.job.with_spec(alone), self.model, self.shape).recorder
        assert recorder is not None
        forward, backward = recorder.trace("forward", "backward")
        return forward, backward


def _live(blocks: list[Block], *passes: Moves) -> list[Block]:
    """Those of the blocks that were not given back: gradients."""
    gone = {~move for moves in passes for move in moves if move < 0}
    return [block for number, block in enumerate(blocks) if number not in gone]


def _give_back(allocator: Allocator, blocks: list[Block]) -> None:
    for block in blocks:
        allocator.release(block)
    blocks.clear()
