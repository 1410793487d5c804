"""What torch's allocator takes from the card over the first steps of a run: the walk of every block, laid out in its segments."""

from __future__ import annotations

from dataclasses import replace

from preflight.job import Job
from preflight.memory import overhead
from preflight.memory.allocator import Allocator, AllocatorMeter
from preflight.memory.budget import Resident
from preflight.memory.model import Model, build, sensible_dims
from preflight.memory.optimizer import Rule, rule, state_sizes
from preflight.memory.step import attention_kernel
from preflight.tape.backward import backward
from preflight.tape.tensor import Tape

STEPS = 2  # states appear at the end of the first step; from the second on nothing new is asked for


def reserved(job: Job, resident: Resident, *, steps: int = STEPS) -> int | None:
    """Bytes torch reserves for the job's first `steps` steps, or None where whole weights do not simply stay on the card.

    `resident` says what lives there besides the network and its states. Needs whole numbers for sizes.
    """
    spec = job.spec
    moved = spec.offload.parameters or spec.offload.blocks or spec.offload.activations
    parallel = spec.parallel
    divided = parallel.strategy not in ("none", "dp", "ddp") or parallel.sequence > 1 or parallel.pipeline > 1
    if divided or moved or spec.model.experts != "one":
        return None
    model = build(job, extend=False)
    allocator = Allocator()
    for _, tensor in model.network.tensors():
        allocator.allocate(tensor.nbytes)
    for nbytes in (*resident.encoders.values(), resident.ema, resident.buckets, overhead.cublas_workspace(job.gpu)):
        if nbytes:
            allocator.allocate(nbytes)
    chosen = rule(spec.train.optimizer)
    tape = Tape(AllocatorMeter(allocator), attention=attention_kernel(job))
    tape.attention_dtype, tape.norms = spec.precision.attention, spec.precision.norms
    tape.use_reentrant = spec.train.use_reentrant
    model.network.bind(tape)
    for step in range(steps):
        for _ in range(min(spec.train.accumulation, 2)):
            _forward_and_backward(job, model, tape)
        if not spec.offload.optimizer:
            _update(chosen, model, allocator, first=step == 0)
        if spec.train.zero_grad == "after-step":
            _drop_gradients(model)
    _drop_gradients(model)
    return allocator.reserved


def _forward_and_backward(job: Job, model: Model, tape: Tape) -> None:
    precision = job.spec.precision
    tape.meter.part("forward")
    with sensible_dims(job), tape.autocasting(precision.autocast):
        loss = model.network.loss(tape, replace(job.shape, sequence=1), precision.autocast or precision.weights)
    if job.spec.train.zero_grad == "before-backward" and job.spec.train.accumulation == 1:
        _drop_gradients(model)
    tape.meter.part("backward")
    backward(loss)
    tape.meter.part("end")


def _update(chosen: Rule, model: Model, allocator: Allocator, *, first: bool) -> None:
    if first:
        for parameter in model.trainable:
            for nbytes in state_sizes(chosen, parameter):
                allocator.allocate(nbytes)
    copies = [allocator.allocate(p.nbytes) for p in model.trainable for _ in range(chosen.copies)]
    for block in copies:
        allocator.release(block)


def _drop_gradients(model: Model) -> None:
    for parameter in model.trainable:
        parameter.grad = None
