"""Does the warm-up end before the run?

What: steps of warm-up against those of the run.
Why: the learning rate never reaches the value that was chosen, and a schedule that decays after the warm-up never begins.
Fix: a warm-up of a few percent of the run.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.schedule import course


def check(case: Case) -> Answers:
    warmup, steps = case.job.spec.schedule.warmup, course(case.job.spec).steps
    if not warmup or steps is None or warmup < steps:
        return
    message = f"The warm-up of {warmup:,} steps is as long as the whole run of {steps:,}, so the learning rate never gets there."
    yield Found("warning", message, "schedule.warmup", fix=f"at most {max(1, steps // 10):,}")
