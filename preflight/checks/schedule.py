"""How many steps is the run?

What: whole steps of an epoch (samples / effective batch), those of the run, and which of epochs and step limit ends it.
Why: learning-rate schedules, intervals and hours are counted in steps; an effective batch of half the size doubles them.
Fix: the samples and the effective batch that were meant.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.schedule import course
from preflight.units import count


def check(case: Case) -> Answers:
    spec = case.job.spec
    schedule, run = spec.schedule, course(spec)
    if schedule.samples is None or run.epoch is None:
        return
    batch = spec.effective_batch if run.unit == "step" else spec.effective_batch // spec.train.accumulation
    if run.epoch == 0:
        message = f"{count(schedule.samples, 'sample')} do not fill one batch of {batch:,}, so an epoch has no step."
        yield Found("error", message, "schedule.samples")
        return
    message = f"An epoch of {count(schedule.samples, 'sample')} is {count(run.epoch, run.unit)} of {batch:,}"
    group = spec.parallel.sequence * spec.parallel.tensor
    if group > 1:
        message += f", not the {run.epoch // group:,} that {spec.parallel.gpus} data-parallel GPUs would make"
    if schedule.epochs and run.total:
        message += f"; the run is {count(run.total, run.unit)}"
    yield Found("note", f"{message}.", "schedule.samples")
    if schedule.epochs and schedule.steps and run.epochs is not None and run.epochs < schedule.epochs:
        done = run.total / run.epoch if run.total else 0
        message = f"{count(schedule.steps, run.unit)} end the run after {done:.3g} of its {schedule.epochs:,} epochs."
        yield Found("note", message, "schedule.steps")
