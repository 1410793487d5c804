"""Is the effective batch what the config says?

What: samples per optimizer step are batch x accumulation x data-parallel degree, against the config's own figure where it has one.
Why: learning rate and warm-up are chosen for it. GPUs that share a sequence, or an accumulation left over from another machine,
change it without a word.
Fix: the accumulation that gives the intended batch.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found


def check(case: Case) -> Answers:
    spec = case.job.spec
    wanted, batch, degree = spec.schedule.effective_batch, spec.train.batch, spec.parallel.data_parallel
    made = spec.effective_batch
    terms = f"batch {batch} × accumulation {spec.train.accumulation} × data-parallel degree {degree}"
    if wanted is not None and wanted != made:
        whole, rest = divmod(wanted, batch * degree)
        fix = f"accumulation {whole}" if not rest else f"a multiple of {batch * degree}, such as {max(1, whole) * batch * degree}"
        message = f"The config says {wanted:,} samples a step, but {terms} makes {made:,}."
        yield Found("warning", message, "schedule.effective_batch", fix=fix)
    elif made > batch and spec.parallel.sequence * spec.parallel.tensor == 1:  # else the check on degrees says it
        yield Found("note", f"The effective batch is {made:,}: {terms}.", "train.batch")
