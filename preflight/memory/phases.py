"""The stretches of a run beside the step: loading, encoding, sampling, saving."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from preflight import catalog
from preflight.job import Job
from preflight.memory.arrival import encoders_arriving
from preflight.memory.budget import Budget, Peak, component_bytes, largest
from preflight.memory.distillation import cached_pass, teacher_to_leave
from preflight.memory.encoders import encoders_bytes, narrow
from preflight.memory.known import known
from preflight.memory.model import Model
from preflight.memory.pixels import kept_bytes
from preflight.memory.sharding import loading, saving
from preflight.memory.step import infer
from preflight.networks.component import Component, TextEncoder, Vae
from preflight.networks.components import component_module
from preflight.networks.network import Shape
from preflight.tape.dtypes import BYTES
from preflight.tape.meter import ArrayMeter, Meter, Size
from preflight.tape.quantized import Quantized
from preflight.tape.tensor import Tape, Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A phase's peak, or None with the `reason` why it could not be computed."""

    name: str
    peak: Peak | None
    reason: str | None = None


def phases(job: Job, model: Model, budget: Budget, shape: Shape | None = None) -> Iterator[Phase]:
    """Every phase the run has, in the order they come, at `shape` (the job's own when None).

    Its sizes may be numpy arrays, all but the frames: VAEs take those in chunks.
    """
    resident, shape = budget.resident, shape or job.shape
    standing = resident.weights + resident.adapters
    unquantized, leaving = _unquantized(job, model), teacher_to_leave(job, budget.beside)
    networks = resident.network + resident.teacher + resident.critic + leaving
    texts = encoders_arriving(job, networks, max(networks, unquantized))
    once = int(model.network.first_pass(job.shape))
    arriving, wide = max(loading(job, model) + leaving, once), max(unquantized, texts) - standing
    yield Phase(
        name="load",
        peak=Peak(allocated=standing + max(arriving, wide), weights=max(arriving, wide), whole=wide > arriving, early=True),
    )
    if leaving:
        yield Phase(name="distil", peak=_asking(standing, leaving, cached_pass(budget.beside, shape)))
    if (job.vae is not None and job.spec.data.latents != "cached") or (job.encoders and job.spec.data.text == "online"):
        yield _encode(job, budget, shape)
    yield Phase(name="step", peak=budget.step)
    if job.spec.sample is not None:
        yield _sample(job, model, budget, shape)
    if job.spec.save is not None:
        yield Phase(name="save", peak=_gathering(budget, saving(job, model)))


def _unquantized(job: Job, model: Model) -> int:
    """Bytes of the network where all of it reaches the GPU before it is quantised or cast, which comes before all else."""
    loaded = job.spec.precision.loaded
    if loaded is not None:
        return sum(p.numel * max(BYTES[loaded], BYTES[p.dtype]) * p.copies for p in model.parameters)
    if job.spec.precision.quantized_on != "gpu":
        return 0
    wide = sum((p.numel * BYTES[p.dtype] - p.nbytes) * p.copies for p in model.parameters if isinstance(p, Quantized))
    return model.frozen_bytes + wide if wide else 0


def _beside(budget: Budget, inside: Size, pixels: Size | None = None) -> Peak:
    """A peak between steps: everything resident, the gradients where the trainer has not dropped them yet, and its batch."""
    kept, activations = budget.kept_gradients, inside + (budget.pixels if pixels is None else pixels)
    return Peak(allocated=budget.resident.total + kept + activations, gradients=kept, activations=activations)


def _asking(standing: int, teacher: int, inside: Size) -> Peak:
    """A teacher at work before there are optimizer states."""
    return Peak(allocated=standing + teacher + inside, activations=inside, weights=teacher, early=True)


def _gathering(budget: Budget, weights: int) -> Peak:
    return replace(_beside(budget, weights), activations=0, weights=weights)


def _encode(job: Job, budget: Budget, shape: Shape) -> Phase:
    """The worse of encoding pixels and encoding captions, one after the other, in steps that do not cache them."""
    passes: list[Size | None] = []
    missing, pixels = "", budget.pixels
    if job.vae is not None and job.spec.data.latents != "cached":
        visiting = component_bytes(job, job.vae) if job.spec.data.latents == "offloaded" else 0
        passes.append(_vae_pass(job, job.vae, "encode", replace(shape, sequence=1), visiting))
        pixels = kept_bytes(job.spec.data, shape, read_in=job.spec.precision.vae or job.vae.dtype)
        missing = job.vae.name if passes[-1] is None else missing
    if job.spec.data.text == "online":
        for component, dtype in job.encoders:
            passes.append(_text_pass(job, component, dtype, shape.batch))
            missing = component.name if passes[-1] is None else missing
    known = [size for size in passes if size is not None]
    if len(known) < len(passes):
        return Phase(name="encode", peak=None, reason=f"the encode pass of {missing} is not modelled yet")
    return Phase(name="encode", peak=_beside(budget, largest(*known), pixels))


def _sample(job: Job, model: Model, budget: Budget, trained: Shape) -> Phase:
    sample, vae = job.spec.sample, job.vae
    assert sample is not None
    shape = replace(
        trained,
        batch=sample.batch,
        height=sample.height or trained.height,
        width=sample.width or trained.width,
        frames=sample.frames or trained.frames,
    )
    doubled = replace(shape, batch=shape.batch * 2) if sample.guidance and model.network.guidance_doubles else shape
    denoise = infer(job, model, doubled) + budget.gathered
    texts = sum(encoders_bytes(job).values()) if sample.text and job.spec.data.text != "online" else 0
    beside = 0 if sample.offload else texts
    if vae is None:
        return Phase(name="sample", peak=_beside(budget, largest(denoise + beside, texts)))
    stays = job.spec.data.latents == "online" or job.spec.data.vae_resident
    visiting = 0 if stays and not sample.own_vae else component_bytes(job, vae)
    decode = _vae_pass(job, vae, "decode", replace(shape, sequence=1), visiting, tiled=sample.tiling)
    if decode is None:
        return Phase(name="sample", peak=None, reason=f"the decode pass of {vae.name} is not modelled yet")
    decode = decode - budget.resident.network if sample.offload else decode + beside
    running, gathered = largest(denoise + beside, decode), texts + visiting if texts else 0
    if isinstance(running, int) and running < gathered:  # all of it is there before the first pass
        return Phase(name="sample", peak=replace(_gathering(budget, gathered), whole=True))
    return Phase(name="sample", peak=_beside(budget, largest(running, gathered)))


def _vae_pass(
    job: Job, vae: catalog.Component, which: Literal["encode", "decode"], shape: Shape, visiting: int, *, tiled: bool = False
) -> Size | None:
    """Peak bytes of one pass under no_grad, with the VAE's own weights where it is only `visiting` the GPU."""
    module = component_module(vae.id)
    if not isinstance(module, Vae):
        return None
    module.use_tiling = tiled
    run, dtype = (module.encode if which == "encode" else module.decode), job.spec.precision.vae or vae.dtype
    sizes = (shape.batch, shape.height, shape.width)
    key = (vae.id, which, dtype, shape, tiled) if all(isinstance(size, int) for size in sizes) else None
    return visiting + known(key, lambda: _inside(module, dtype, lambda tape: run(tape, shape, dtype), *sizes))


def _text_pass(job: Job, encoder: catalog.Component, dtype: catalog.Dtype, batch: Size) -> Size | None:
    module = component_module(encoder.id)
    if not isinstance(module, TextEncoder):
        return None
    tokens = min(encoder.max_tokens or job.text_tokens, job.text_tokens)
    module.load(dtype)
    narrow(job, module, dtype)
    kept = (job.spec.precision.text_encoder_quantization, job.spec.offload.text_layers)
    key = (encoder.id, dtype, batch, tokens, kept) if isinstance(batch, int) else None
    return known(key, lambda: _inside(module, None, lambda tape: module.encode(tape, batch, tokens, dtype), batch))


def _inside(module: Component, dtype: str | None, run: Callable[[Tape], Tensor], *sizes: Size) -> Size:
    """Peak bytes of a pass over such sizes, beyond the module's weights, which are loaded in `dtype` where one is given."""
    tape = Tape(Meter() if all(isinstance(size, int) for size in sizes) else ArrayMeter())
    tape.grad_enabled = False
    if dtype is not None:
        module.load(dtype)
    module.bind(tape)
    tape.meter.part("pass")
    run(tape)
    tape.meter.part("end")
    return tape.meter.parts["pass"].peak
