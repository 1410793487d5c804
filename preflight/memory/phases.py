"""The stretches of a run beside the step: loading, encoding, sampling, saving."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from preflight import catalog
from preflight.job import Job
from preflight.memory.budget import Budget, Peak, component_bytes
from preflight.memory.model import Model
from preflight.memory.step import infer
from preflight.networks.component import Vae
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
    if job.vae is not None and job.spec.data.latents != "cached":
        yield _encode(job, budget, job.vae)
    yield Phase(name="step", peak=budget.step)
    if job.spec.sample is not None:
        yield _sample(job, model, budget)
    if job.spec.save is not None:
        yield Phase(name="save", peak=_beside(budget, 0))


def _beside(budget: Budget, activations: int) -> Peak:
    """A peak between steps: everything resident, and the gradients where the trainer has not dropped them yet."""
    kept = budget.kept_gradients
    return Peak(allocated=budget.resident.total + kept + activations, gradients=kept, activations=activations)


def _encode(job: Job, budget: Budget, vae: catalog.Component) -> Phase:
    module = component_module(vae.id)
    if not isinstance(module, Vae):
        return Phase(name="encode", peak=None, reason=f"the encode pass of {vae.name} is not modelled yet")
    visiting = component_bytes(job, vae) if job.spec.data.latents == "offloaded" else 0
    inside = _passing(job, vae, module, module.encode, replace(job.shape, sequence=1))
    return Phase(name="encode", peak=_beside(budget, inside + visiting))


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
    module = component_module(vae.id)
    if not isinstance(module, Vae):
        return Phase(name="sample", peak=None, reason=f"the decode pass of {vae.name} is not modelled yet")
    visiting = 0 if job.spec.data.latents == "online" else component_bytes(job, vae)
    decode = _passing(job, vae, module, module.decode, replace(shape, sequence=1)) + visiting
    return Phase(name="sample", peak=_beside(budget, max(denoise, decode)))


def _passing(job: Job, vae: catalog.Component, module: Vae, run: Callable[[Tape, Shape, str], Tensor], shape: Shape) -> int:
    """Peak bytes of one pass under no_grad, weights not counted."""
    dtype = job.spec.precision.vae or vae.dtype
    tape = Tape(Meter())
    tape.grad_enabled = False
    module.load(dtype)
    module.bind(tape)
    tape.meter.part("pass")
    run(tape, shape, dtype)
    tape.meter.part("end")
    return int(tape.meter.parts["pass"].peak)
