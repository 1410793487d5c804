"""Networks beside the one that trains: the teacher it learns from, and the critic that learns what it makes.

The order of a step is distribution matching distillation's (DMD2, Yin et al. 2024, arXiv 2405.14867) as FastVideo writes it
(fastvideo/train/methods/distribution_matching/dmd2.py: single_train_step and backward). In a step that updates the student, its
graph stands while teacher and critic are asked and the critic makes its own; the student's backward pass comes first, and its
gradients wait through the critic's until both optimizers have stepped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from preflight.finding import ConfigError, Finding
from preflight.job import Job, job
from preflight.memory.model import Model, build
from preflight.memory.optimizer import Optimizer, optimizer
from preflight.memory.rank import Rank
from preflight.memory.sharding import rank
from preflight.memory.step import Step, infer, walk
from preflight.networks.network import Shape
from preflight.tape.dtypes import BYTES
from preflight.tape.meter import Part, Size


@dataclass(frozen=True, kw_only=True, slots=True)
class Role:
    """A network beside the student, ready to walk, and what a rank keeps of it."""

    job: Job
    model: Model
    share: Rank

    @property
    def weights(self) -> int:
        return self.share.trained + self.share.frozen

    @property
    def states(self) -> Optimizer:
        return optimizer(self.job, self.share)


@dataclass(frozen=True, kw_only=True, slots=True)
class Roles:
    """Who stands beside the student; neither in a run that distils nothing."""

    teacher: Role | None = None
    critic: Role | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """Bytes beyond the resident ones where a stretch of the step is fullest, and how many of them are gradients.

    `activations` is the highest of what is neither, `inside` the sum with what kernels hold for themselves; `update` is what the
    optimizer holds while it steps, and None while a network computes.
    """

    live: Size
    gradients: Size = 0
    activations: Size = 0
    inside: Size = 0
    update: int | None = None


def roles(work: Job) -> Roles:
    """Raises ConfigError for a network the catalog lacks, and for a student that cannot have others beside it."""
    found = work.spec.train.distillation
    if found is None:
        return Roles()
    if work.spec.model.experts != "one" or work.spec.parallel.pipeline > 1 or work.spec.parallel.strategy.startswith("zero"):
        message = "Cannot judge: distillation of two experts, of pipeline stages and under ZeRO is not modelled."
        raise ConfigError(Finding(id="not-modelled", severity="error", message=message, key="train.distillation"))
    teacher = _role(work, found.teacher, "teacher", trains=False) if found.teacher is not None else None
    critic = _role(work, found.critic, "critic", trains=True) if found.critic is not None else None
    return Roles(teacher=teacher, critic=critic)


def _role(work: Job, name: str, role: str, *, trains: bool) -> Role:
    """The student's spec for another network, which trains whole or not at all."""
    spec = work.spec
    alone = replace(spec.train, method="full", lora=None, distillation=None, ema=False)
    dims = {key: value for key, value in spec.model.dims.items() if name == spec.model.name and key in work.network.dims}
    model_spec = replace(spec.model, name=name, dims=dims)
    try:
        own = job(replace(spec, model=model_spec, train=alone), work.gpu)
    except ConfigError as problem:
        raise ConfigError(*(replace(found, key=f"train.distillation.{role}") for found in problem.findings)) from None
    model = build(own)
    if not trains:
        for _, parameter in model.network.parameters():
            parameter.requires_grad = False
    return Role(job=own, model=model, share=rank(own, model))


def teacher_to_leave(work: Job, beside: Roles) -> int:
    """Bytes of a teacher that is there only before training begins."""
    found = work.spec.train.distillation
    return beside.teacher.weights if found is not None and found.cached and beside.teacher is not None else 0


def cached_pass(beside: Roles, shape: Shape) -> Size:
    """Peak bytes of such a teacher's pass over one sample (fastvideo/train/methods/knowledge_distillation/kd.py)."""
    teacher = beside.teacher
    assert teacher is not None
    return infer(teacher.job, teacher.model, replace(shape, batch=1))


def moments(work: Job, model: Model, beside: Roles, step: Step, states: Optimizer, shape: Shape) -> Iterator[Moment]:
    """What a step holds at each of its full moments, the student's own passes being `step`; its end comes last."""
    critic = beside.critic
    other = None if critic is None else walk(critic.job, critic.model, shape)
    kept = step.forward.gradients_at_peak  # of micro-batches before this one
    both = kept if other is None else kept + other.forward.gradients_at_peak
    graph = step.forward.end - kept
    yield _passing(step.forward, beside=both - kept)
    for role in (None if teacher_to_leave(work, beside) else beside.teacher, critic):
        if role is not None:
            yield _asked(infer(role.job, role.model, shape), graph, both)
    if critic is None or other is None:
        yield _passing(step.backward)
        yield _updating(work, step.left, states.update, beside=step.pixels)
        return
    yield _asked(infer(work, model, shape), graph, both)  # the student makes the critic's sample
    yield _passing(other.forward, beside=kept, graph=graph)
    carried = both - kept if work.spec.train.accumulation > 1 else 0
    yield _passing(step.backward, beside=carried, graph=other.forward.end - (both - kept))
    yield _passing(other.backward, beside=step.left)
    yield _updating(work, step.left + other.left, max(states.update, critic.states.update), beside=step.pixels)


def _passing(part: Part, *, beside: Size = 0, graph: Size = 0) -> Moment:
    """A pass with gradients of the other network and its saved tensors `beside` it."""
    return Moment(
        live=part.peak + beside + graph,
        gradients=part.gradients_at_peak + beside,
        activations=part.activations + graph,
        inside=part.inside + beside + graph,
    )


def _asked(size: Size, graph: Size, gradients: Size) -> Moment:
    """A pass without gradients, while the student's graph stands."""
    return Moment(live=graph + gradients + size, gradients=gradients, activations=graph + size)


def _updating(work: Job, gradients: Size, update: int, *, beside: Size) -> Moment:
    held = 0 if work.spec.offload.optimizer else update
    return Moment(live=gradients + held + beside, gradients=gradients, update=held)


def critic_saved(work: Job) -> tuple[int, int]:
    """Bytes of weights and of optimizer states beside the student's in a checkpoint of all ranks (train/methods/base.py)."""
    critic = roles(work).critic
    if critic is None:
        return 0, 0
    states = optimizer(critic.job, critic.model)
    weights = sum(p.numel * BYTES[p.dtype] * p.copies for p in critic.model.trainable)
    return weights, states.states + states.master
