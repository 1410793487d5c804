"""What does sampling during the run cost?

What: how often the run samples, and the peak of that phase: one pass of the network without gradients, doubled by guidance where
its pipeline runs both halves at once, then the VAE's decoding of the whole sample, with all of the training still resident.
Why: a run whose step fits dies at its first validation, hours in.
Fix: smaller samples, tiled decoding, or sampling outside the run from a checkpoint.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.schedule import course
from preflight.units import count, gib


def check(case: Case) -> Answers:
    spec, sample = case.job.spec, case.job.spec.sample
    peak = next((phase.peak for phase in case.phases if phase.name == "sample"), None)
    step = next((phase.peak for phase in case.phases if phase.name == "step"), None)
    if sample is None or peak is None or step is None or case.job.vae is None:
        return
    run = course(spec)
    times = run.times(sample.every, sample.every_epochs)
    intervals = [count(sample.every, run.unit)] if sample.every else []
    intervals += [count(sample.every_epochs, "epoch")] if sample.every_epochs else []
    when = [f"every {' and every '.join(intervals)}"] if intervals else []
    when += ["at the end"] if sample.final else []
    often = f" ({'' if run.exact else 'at most '}{count(times + sample.final, 'time')})" if times is not None else ""
    guided = " with both halves of the guidance at once" if sample.guidance and case.model.network.guidance_doubles else ""
    where = "on each GPU" if spec.parallel.gpus > 1 else "on the GPU"
    beside = gib(abs(int(peak.allocated) - int(step.allocated))) + (" more" if peak.allocated > step.allocated else " less")
    message = (
        f"Sampling {' and '.join(when)}{often} makes {sample.batch} {where}{guided} beside all that is resident:"
        f" {gib(int(peak.allocated))}, {beside} than a step."
    )
    yield Found("note", message, "sample.every")
