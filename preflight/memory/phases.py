"""The stretches of a run beside the step: loading, encoding, sampling, saving."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from preflight import catalog
from preflight.job import Job
from preflight.memory.budget import Budget, Peak, component_bytes
from preflight.memory.model import Model
from preflight.memory.step import infer
from preflight.networks.component import Component, TextEncoder, Vae
from preflight.networks.components import component_module
from preflight.networks.network import Shape
from preflight.tape.meter import Meter
from preflight.tape.tensor import Tape, Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A phase's peak, or None with the `reason` why it could not be computed."""

    name: str
    peak: Peak | None
    reason: str | None = None


def phases(job: Job, model: Model, budget: Budget) -> Iterator[Phase]:
    """Every phase the run has, in the order they come."""
    resident = budget.resident
    yield Phase(name="load", peak=Peak(allocated=resident.weights + resident.adapters))
    if (job.vae is not None and job.spec.data.latents != "cached") or (job.encoders and job.spec.data.text == "online"):
        yield _encode(job, budget)
    yield Phase(name="step", peak=budget.step)
    if job.spec.sample is not None:
        yield _sample(job, model, budget)
    if job.spec.save is not None:
        yield Phase(name="save", peak=_beside(budget, 0))


def _beside(budget: Budget, activations: int) -> Peak:
    """A peak between steps: everything resident, and the gradients where the trainer has not dropped them yet."""
    kept = budget.kept_gradients
    return Peak(allocated=budget.resident.total + kept + activations, gradients=kept, activations=activations)


def _encode(job: Job, budget: Budget) -> Phase:
    """The worse of encoding pixels and encoding captions, one after the other, in steps that do not cache them."""
    passes: list[int | None] = []
    missing = ""
    if job.vae is not None and job.spec.data.latents != "cached":
        visiting = component_bytes(job, job.vae) if job.spec.data.latents == "offloaded" else 0
        passes.append(_vae_pass(job, job.vae, "encode", replace(job.shape, sequence=1), visiting))
        missing = job.vae.name if passes[-1] is None else missing
    if job.spec.data.text == "online":
        for component, dtype in job.encoders:
            passes.append(_text_pass(job, component, dtype))
            missing = component.name if passes[-1] is None else missing
    known = [size for size in passes if size is not None]
    if len(known) < len(passes):
        return Phase(name="encode", peak=None, reason=f"the encode pass of {missing} is not modelled yet")
    return Phase(name="encode", peak=_beside(budget, max(known)))


def _sample(job: Job, model: Model, budget: Budget) -> Phase:
    sample, data, vae = job.spec.sample, job.spec.data, job.vae
    assert sample is not None
    shape = replace(
        job.shape,
        batch=sample.batch,
        height=sample.height or data.height,
        width=sample.width or data.width,
        frames=sample.frames or data.frames,
    )
    doubled = replace(shape, batch=shape.batch * 2) if sample.guidance and model.network.guidance_doubles else shape
    denoise = infer(job, model, doubled)
    if vae is None:
        return Phase(name="sample", peak=_beside(budget, denoise))
    visiting = 0 if job.spec.data.latents == "online" else component_bytes(job, vae)
    decode = _vae_pass(job, vae, "decode", replace(shape, sequence=1), visiting)
    if decode is None:
        return Phase(name="sample", peak=None, reason=f"the decode pass of {vae.name} is not modelled yet")
    return Phase(name="sample", peak=_beside(budget, max(denoise, decode)))


def _vae_pass(job: Job, vae: catalog.Component, which: Literal["encode", "decode"], shape: Shape, visiting: int) -> int | None:
    """Peak bytes of one pass under no_grad, with the VAE's own weights where it is only `visiting` the GPU."""
    module = component_module(vae.id)
    if not isinstance(module, Vae):
        return None
    run, dtype = (module.encode if which == "encode" else module.decode), job.spec.precision.vae or vae.dtype
    return visiting + _inside(module, dtype, lambda tape: run(tape, shape, dtype))


def _text_pass(job: Job, encoder: catalog.Component, dtype: catalog.Dtype) -> int | None:
    module = component_module(encoder.id)
    if not isinstance(module, TextEncoder):
        return None
    tokens = min(encoder.max_tokens or job.text_tokens, job.text_tokens)
    return _inside(module, dtype, lambda tape: module.encode(tape, job.spec.train.batch, tokens, dtype))


def _inside(module: Component, dtype: str, run: Callable[[Tape], Tensor]) -> int:
    """Peak bytes of a pass beyond the module's weights."""
    tape = Tape(Meter())
    tape.grad_enabled = False
    module.load(dtype)
    module.bind(tape)
    tape.meter.part("pass")
    run(tape)
    tape.meter.part("end")
    return int(tape.meter.parts["pass"].peak)
