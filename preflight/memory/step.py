"""One training step, walked on the tape: what it adds to the resident bytes, and when."""

from __future__ import annotations

from dataclasses import dataclass, replace

from preflight.finding import ConfigError, Finding
from preflight.job import Job
from preflight.memory import pixels, rows
from preflight.memory.known import known, walk_key
from preflight.memory.model import Model, sensible_dims
from preflight.memory.sharding import during_step
from preflight.memory.stages import Stage
from preflight.networks.network import Shape
from preflight.spec import Dtype
from preflight.tape.backward import backward
from preflight.tape.flops import Flops
from preflight.tape.meter import ArrayMeter, Meter, Part, Size
from preflight.tape.parallel import Parallel
from preflight.tape.sharing import Sharing
from preflight.tape.staged import Staged
from preflight.tape.tensor import Attention, Tape
from preflight.tape.trace import Recorder


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Bytes beyond the resident ones. `left` is what is live after the backward pass: the gradients; `away` went to the host.

    `pixels` are those of the batch, which are there from the beginning to the very end and in both passes' figures. Of a single
    shape `recorder` knows the order of it all, and `flops` are the operations.
    """

    forward: Part
    backward: Part
    left: Size
    away: Size = 0
    pixels: Size = 0
    recorder: Recorder | None = None
    flops: Flops | None = None


def walk(job: Job, model: Model, shape: Shape | None = None, *, flops: Flops | None = None) -> Step:
    """Walk one steady step of `shape` (the job's own when None; its sizes may be numpy arrays).

    One that was walked before is known. `flops` counts the operations on the way. Raises ConfigError where the network cannot take
    the shape.
    """
    shape = shape or job.shape
    _check_sequence(job, model)
    _check_checkpoints(job)
    key = walk_key(job, model, shape)
    if key is None or flops is not None:
        return _taped(job, model, shape, flops)
    return known(key, lambda: _taped(job, model, shape, Flops()))


def _taped(job: Job, model: Model, shape: Shape, flops: Flops | None) -> Step:
    tape = _tape(job, model, shape, Recorder)
    tape.flops = flops
    with tape.parallel.computing():
        return _walk(job, model, tape, shape)


def _walk(job: Job, model: Model, tape: Tape, shape: Shape) -> Step:
    meter, precision, train = tape.meter, job.spec.precision, job.spec.train
    several = train.accumulation > 1 or train.passes > 1
    if several or train.zero_grad == "before-backward":
        tape.parallel.keep_gradients(tape, model.trainable)
    meter.part("forward")
    batch = pixels.keep(tape, job.spec.data, shape)
    with sensible_dims(job), tape.autocasting(precision.autocast):
        rows.look_ahead(train, model, tape, shape, _dtype(job))
        loss = model.network.loss(tape, rows.trained(train, shape), _dtype(job))
    saved = meter.live - meter.gradients
    if not several:
        tape.parallel.drop_gradients(model.trainable)
    meter.part("backward")
    backward(loss)
    del loss, batch
    meter.part("end")
    left = meter.live
    tape.parallel.drop_gradients(model.trainable)
    forward, back = meter.parts["forward"], meter.parts["backward"]
    if model.stage is not None:
        others = _others(model.stage, tape.parallel, saved)
        forward, back = (
            replace(p, peak=p.peak + others, activations=p.activations + others, inside=p.inside + others, end=p.end + others)
            for p in (forward, back)
        )
    recorder = meter if isinstance(meter, Recorder) else None
    held = pixels.kept_bytes(job.spec.data, shape)
    return Step(forward=forward, backward=back, left=left, away=tape.away, pixels=held, recorder=recorder, flops=tape.flops)


def _others(stage: Stage, parallel: Parallel, saved: Size) -> Size:
    """What a pipeline stage holds beside the micro-batch that is walked: what the others in flight saved, and what is exchanged.

    deepspeed/runtime/pipe/engine.py: each micro-batch in flight keeps what was received (_exec_forward_pass clones it once more for
    the graph) and what was sent, until its gradients have come; pipe_recv_buf and grad_layer are one buffer each.
    """
    assert isinstance(parallel, Staged)
    exchanged = (0 if parallel.handed is None else parallel.handed) * (stage.in_flight + 1) * stage.neighbours
    return saved * (stage.in_flight - 1) + exchanged


def infer(job: Job, model: Model, shape: Shape) -> Size:
    """Peak bytes beyond the resident ones of one forward pass of `shape` under no_grad: a sampling step's network call."""
    key = walk_key(job, model, shape)
    return known(None if key is None else ("infer", key), lambda: _inferred(job, model, shape))


def _inferred(job: Job, model: Model, shape: Shape) -> Size:
    tape = _tape(job, model, shape)
    tape.grad_enabled = False
    precision = job.spec.precision
    tape.meter.part("forward")
    with tape.parallel.computing(), sensible_dims(job), tape.autocasting(precision.autocast):
        model.network.loss(tape, shape, _dtype(job))
    tape.meter.part("end")
    return tape.meter.parts["forward"].peak


def _tape(job: Job, model: Model, shape: Shape, make: type[Meter] = Meter) -> Tape:
    scalar = all(isinstance(size, int) for size in (shape.batch, shape.height, shape.width, shape.frames, shape.text_tokens))
    meter = make() if scalar else ArrayMeter()
    tape = Tape(meter, attention=attention_kernel(job), sharing=_sharing(job, shape))
    tape.parallel = during_step(job, model, tape)
    if model.stage is not None:
        tape.parallel = Staged(model.network, tape.parallel)
    tape.attention_dtype, tape.norms = job.spec.precision.attention, job.spec.precision.norms
    away, tape.use_reentrant = job.spec.offload.activations, job.spec.train.use_reentrant
    tape.sends_inputs_away, tape.sends_every_input = away is not False, away == "saved"
    model.network.bind(tape)
    return tape


def _sharing(job: Job, shape: Shape) -> Sharing:
    """One GPU alone has all tokens of a sample that it makes."""
    parallel = job.spec.parallel
    ring = parallel.ring if shape.sequence > 1 else 1
    return Sharing(ranks=shape.sequence, ring=ring, code=parallel.sequence_code)


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


def _check_sequence(job: Job, model: Model) -> None:
    if job.spec.parallel.sequence > 1 and not model.network.divides_sequence:
        message = f"Cannot judge: sequence parallelism of {job.network.name} is not modelled yet."
        raise ConfigError(Finding(id="not-modelled", severity="error", message=message, key="parallel.sequence"))


def _check_checkpoints(job: Job) -> None:
    """FSDP's hooks gather and free a unit's weights around a forward pass with gradients, which a reentrant checkpoint lacks."""
    train, parallel = job.spec.train, job.spec.parallel
    if train.use_reentrant and train.checkpointing is not False and parallel.strategy == "fsdp":
        message = "Cannot judge: reentrant checkpointing under FSDP is not modelled."
        raise ConfigError(Finding(id="not-modelled", severity="error", message=message, key="train.use_reentrant"))
