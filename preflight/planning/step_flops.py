"""The operations of a config's training step, counted on the tape."""

from __future__ import annotations

from dataclasses import dataclass, replace

from preflight.job import Job
from preflight.memory.model import Model
from preflight.memory.step import walk
from preflight.networks.component import Component, TextEncoder, Vae
from preflight.networks.components import component_module
from preflight.tape.flops import Flops
from preflight.tape.meter import Meter
from preflight.tape.tensor import Tape


@dataclass(frozen=True, kw_only=True, slots=True)
class StepFlops:
    """Operations of one optimizer step on one GPU; `recomputed` are those that checkpoints run again.

    `encoders` are those of VAE and text encoders that run in every step; `uncounted` names the ones that are not modelled, and the
    networks of a distillation beside the student.
    """

    forward: int
    backward: int
    recomputed: int
    encoders: int = 0
    uncounted: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return self.forward + self.backward + self.recomputed + self.encoders


def step_flops(job: Job, model: Model) -> StepFlops:
    """Count one step of the job with all that it accumulates. Raises ConfigError where the network cannot take the shape."""
    counter = walk(job, model).flops
    assert counter is not None
    found = {name: _encoder_flops(job, component_module(name)) for name in _encoders(job)}
    encoders = sum(flops for flops in found.values() if flops is not None)
    times, distillation = job.spec.train.accumulation, job.spec.train.distillation
    others = [name for name in (distillation.teacher, distillation.critic) if name] if distillation is not None else []
    train = job.spec.train
    passes, looked = train.passes, train.ahead  # the walk has one pass of the rows that train, after those that are looked at
    forward = int(counter.forward) * (train.rows * passes + looked) // (train.rows + looked)
    return StepFlops(
        forward=forward * times,
        backward=int(counter.backward) * passes * times,
        recomputed=int(counter.recomputed) * passes * times,
        encoders=encoders * times,
        uncounted=(*others, *(name for name, flops in found.items() if flops is None)),
    )


def _encoders(job: Job) -> list[str]:
    """Components whose results are not cached, so that every batch passes through them."""
    data = job.spec.data
    names = [component.id for component, _ in job.encoders if component.kind == "text-encoder"] if data.text != "cached" else []
    return [*names, job.vae.id] if data.latents != "cached" and job.vae is not None else names


def _encoder_flops(job: Job, module: Component | None) -> int | None:
    tape, counter = Tape(Meter()), Flops()
    tape.flops, tape.grad_enabled = counter, False
    if not isinstance(module, Vae | TextEncoder):
        return None
    module.load("bf16")  # operations do not depend on the dtype
    module.bind(tape)
    if isinstance(module, Vae):
        module.encode(tape, replace(job.shape, sequence=1), "bf16")
    else:
        module.encode(tape, job.spec.train.batch, job.text_tokens, "bf16")
    return int(counter.total)
