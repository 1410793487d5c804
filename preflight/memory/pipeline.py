"""The stage of a pipeline whose GPU needs most, which is the one that is shown."""

from __future__ import annotations

from preflight.job import Job
from preflight.memory.budget import budget
from preflight.memory.model import Model, build
from preflight.memory.stages import stages


def busiest(job: Job) -> Model:
    """What that stage has of the network, or all of it where there is one stage.

    Raises ConfigError where the network cannot be built, cut or walked as the spec says.
    """
    if job.spec.parallel.pipeline == 1:
        return build(job)
    parts = [build(job, stage=stage) for stage in stages(job, build(job, extend=False).network)]
    return max(parts, key=lambda model: int(budget(job, model).allocated))
