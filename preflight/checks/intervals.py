"""Do the intervals of saving and sampling fire, and not always?

What: steps and epochs between checkpoints and between samples, against the length of the run.
Why: an interval longer than the run leaves one checkpoint at the end, or none, to a crash; an interval of one step spends the run
saving. Validation sets that are read often can be more work than the training between.
Fix: an interval that comes a few times in the run; if an interval like 9999999 is meant to switch something off, this note is all.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.schedule import Course, course
from preflight.units import count

OFF = 10  # an interval this many times the run was not chosen for it, but to switch something off


def check(case: Case) -> Answers:
    spec = case.job.spec
    run = course(spec)
    save, sample = spec.save, spec.sample
    if save is not None:
        left = "only the one at the end" if save.final else "none"
        yield from _interval(run, "checkpoint", f"the run leaves {left}", save.every, save.every_epochs, "save")
    if sample is not None and case.job.vae is not None:
        left = "only those at the end" if sample.final else "none"
        yield from _interval(run, "sample", f"the run makes {left}", sample.every, sample.every_epochs, "sample")
    validation = spec.schedule.validation_samples
    if validation and sample is not None and sample.every and run.unit == "step":
        trained = sample.every * spec.effective_batch
        if validation > trained:
            message = (
                f"Each validation, if it reads all {validation:,} samples, reads more than the {trained:,} that are trained on"
                f" in the {count(sample.every, 'step')} before it."
            )
            yield Found("note", message, "sample.every")


def _interval(run: Course, what: str, else_: str, every: int | None, every_epochs: int | None, group: str) -> Answers:
    if every == 1 and run.total != 1:
        yield Found("warning", f"A {what} is made at every single {run.unit}.", f"{group}.every", fix="a longer interval")
    times = run.times(every, every_epochs)
    if times != 0 or (every is None and every_epochs is None):
        return
    key, interval, length = (
        (f"{group}.every", count(every, run.unit), f"{run.total:,}")
        if every is not None
        else (f"{group}.every_epochs", count(every_epochs or 0, "epoch"), f"{run.epochs:,}")
    )
    deliberate = every is not None and run.total is not None and every >= OFF * run.total
    message = f"A {what} every {interval} never comes in a run of {length}: {else_}."
    yield Found("note" if deliberate or else_.endswith("at the end") else "warning", message, key)
