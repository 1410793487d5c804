"""One training step, walked on the tape: what it adds to the resident bytes, and when."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from preflight.finding import ConfigError, Finding
from preflight.job import Job
from preflight.memory.model import Model, sensible_dims
from preflight.memory.sharding import shares
from preflight.networks.network import Shape
from preflight.spec import Dtype
from preflight.tape.backward import backward
from preflight.tape.dtypes import BYTES
from preflight.tape.flops import Flops
from preflight.tape.meter import ArrayMeter, Meter, Part, Size, rounded
from preflight.tape.sharding import Sharding
from preflight.tape.tensor import Attention, Storage, Tape, Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Bytes beyond the resident ones. `left` is what is live after the backward pass: the gradients."""

    forward: Part
    backward: Part
    left: Size


def walk(job: Job, model: Model, shape: Shape | None = None, *, flops: Flops | None = None) -> Step:
    """Walk one steady step of `shape` (the job's own when None; its sizes may be numpy arrays).

    `flops` counts the operations on the way. Raises ConfigError where the network cannot take the shape.
    """
    shape = shape or job.shape
    _check_sequence(job, model)
    tape = _tape(job, model, shape)
    tape.flops = flops
    with _computing(tape):
        return _walk(job, model, tape, shape)


def _walk(job: Job, model: Model, tape: Tape, shape: Shape) -> Step:
    meter, precision, train = tape.meter, job.spec.precision, job.spec.train
    if train.accumulation > 1 or train.zero_grad == "before-backward":
        _keep_gradients(model, tape)
    meter.part("forward")
    with sensible_dims(job), tape.autocasting(precision.autocast):
        loss = model.network.loss(tape, shape, _dtype(job))
    if train.accumulation == 1:
        _drop_gradients(model, tape)
    meter.part("backward")
    backward(loss)
    del loss
    meter.part("end")
    left = meter.live
    _drop_gradients(model, tape)
    return Step(forward=meter.parts["forward"], backward=meter.parts["backward"], left=left)


def infer(job: Job, model: Model, shape: Shape) -> Size:
    """Peak bytes beyond the resident ones of one forward pass of `shape` under no_grad: a sampling step's network call."""
    tape = _tape(job, model, shape)
    tape.grad_enabled = False
    precision = job.spec.precision
    tape.meter.part("forward")
    with _computing(tape), sensible_dims(job), tape.autocasting(precision.autocast):
        model.network.loss(tape, shape, _dtype(job))
    tape.meter.part("end")
    return tape.meter.parts["forward"].peak


def _tape(job: Job, model: Model, shape: Shape) -> Tape:
    scalar = all(isinstance(size, int) for size in (shape.batch, shape.height, shape.width, shape.frames, shape.text_tokens))
    meter = Meter() if scalar else ArrayMeter()
    parallel = job.spec.parallel
    ranks = shares(parallel).gradients
    tape = Tape(meter, attention=attention_kernel(job), gradient_ranks=ranks, sequence_ranks=shape.sequence)
    if parallel.strategy == "fsdp":
        policy = {"reshard": parallel.reshard, "compute": parallel.compute, "reduce": parallel.reduce}
        tape.gradient_ranks, tape.sharding = 1, Sharding(tape, model.network, parallel.gpus, **policy)
    model.network.bind(tape)
    return tape


def _computing(tape: Tape) -> AbstractContextManager[None]:
    return nullcontext() if tape.sharding is None else tape.sharding.computing()


def _dtype(job: Job) -> Dtype:
    """The dtype of the network's inputs."""
    precision, parallel = job.spec.precision, job.spec.parallel
    gathered = parallel.compute if parallel.strategy == "fsdp" else None
    return precision.autocast or gathered or precision.weights


def attention_kernel(job: Job) -> Attention:
    """The kernel scaled_dot_product_attention picks on the job's GPU (aten/src/ATen/native/transformers/cuda/sdp_utils.cpp).

    Flash and bfloat16 in the memory-efficient kernel need compute capability 8.0; before it bfloat16 is left to the
    quadratic form. Without a GPU, or for the float32 that flash does not take, the fused kernels are assumed.
    """
    dtype = _dtype(job)
    if job.gpu is None or job.gpu.flash_attention:
        return "flash"
    return "math" if dtype == "bf16" else "efficient"


def _keep_gradients(model: Model, tape: Tape) -> None:
    """Gradients of the step before, which live through this forward pass."""
    if tape.sharding is not None:
        tape.sharding.keep_gradients()
        return
    for parameter in model.trainable:
        elements = -(-parameter.numel // tape.gradient_ranks)
        storage = Storage(tape.meter, rounded(elements * BYTES[parameter.dtype]) * parameter.copies)
        storage.keep(gradient=True)
        parameter.grad = Tensor(tape, (elements,), parameter.dtype, storage)


def _drop_gradients(model: Model, tape: Tape) -> None:
    for parameter in model.trainable:
        parameter.grad = None
    if tape.sharding is not None:
        tape.sharding.drop_gradients()


def _check_sequence(job: Job, model: Model) -> None:
    if job.spec.parallel.sequence > 1 and not model.network.divides_sequence:
        message = f"Cannot judge: sequence parallelism of {job.network.name} is not modelled yet."
        raise ConfigError(Finding(id="not-modelled", severity="error", message=message, key="parallel.sequence"))
