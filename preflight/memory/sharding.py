"""What a run's strategy leaves on one rank, and what it does during the step: one line a strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from preflight.job import Job
from preflight.memory import fsdp, replicated, zero
from preflight.memory.model import Model
from preflight.memory.rank import Rank, whole
from preflight.tape.parallel import Parallel
from preflight.tape.tensor import Tape


def _nothing(_job: Job, _model: Model) -> int:
    return 0


class Strategy(NamedTuple):
    """The rank that needs most, between steps and during one; what it holds besides as weights arrive, and are gathered to save."""

    rank: Callable[[Job, Model], Rank]
    during_step: Callable[[Job, Model, Tape], Parallel]
    loading: Callable[[Job, Model], int] = _nothing
    saving: Callable[[Job, Model], int] = _nothing


def _alone(_job: Job, _model: Model, _tape: Tape) -> Parallel:
    return Parallel()


STRATEGIES = {
    "none": Strategy(whole, _alone),
    "dp": Strategy(whole, replicated.first_of_replicas),
    "ddp": Strategy(replicated.distributed, _alone),
    "fsdp": Strategy(fsdp.rank, fsdp.during_step, fsdp.one_block, fsdp.saving),
    "zero1": Strategy(zero.partitioned, zero.during_step),
    "zero2": Strategy(zero.partitioned, zero.during_step),
    "zero3": Strategy(zero.sharded, zero.during_step, zero.arriving, zero.saving),
}


def rank(job: Job, model: Model) -> Rank:
    """What one rank of the job keeps. Raises nothing: the spec's schema knows the strategies."""
    return STRATEGIES[job.spec.parallel.strategy].rank(job, model)


def loading(job: Job, model: Model) -> int:
    """Bytes of weights beside those that stay, at the worst moment of their arrival on the GPU."""
    return STRATEGIES[job.spec.parallel.strategy].loading(job, model)


def saving(job: Job, model: Model) -> int:
    """Bytes of weights that are gathered on the GPU at once on their way into a checkpoint."""
    return STRATEGIES[job.spec.parallel.strategy].saving(job, model)


def during_step(job: Job, model: Model, tape: Tape) -> Parallel:
    """What the job's strategy does around the modules of a walk on `tape`."""
    return STRATEGIES[job.spec.parallel.strategy].during_step(job, model, tape)
