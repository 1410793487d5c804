"""How long will it take?

What: the operations of a step, counted on the network's own forward and backward pass with what checkpoints run again and the
encoders that run in every step, at 30 to 50 % of the GPU's peak (MFU), and the hours of the whole run where its steps are known.
Why: a queue's time limit, a budget. Loading, saving, sampling and waiting for data are not in it.
Fix: none needed; `preflight plan CONFIG` has the same for other GPUs, utilisations and prices.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.schedule import course

MFU = (0.5, 0.3)  # what well and what usually tuned runs of transformers reach, as in `preflight plan`


def check(case: Case) -> Answers:
    gpu, spec = case.job.gpu, case.job.spec
    if gpu is None or not case.attends or spec.train.distillation:  # MFU is known for transformers, a student's rollouts are not
        return
    from preflight.planning.hardware import peak_tflops
    from preflight.planning.step_flops import step_flops

    flops, peak, run = step_flops(case.job, case.model).total, peak_tflops(gpu, spec.precision), course(spec)
    fast, slow = (flops / (peak * 1e12 * mfu) for mfu in MFU)
    share = f"{100 * MFU[1]:g} to {100 * MFU[0]:g} % of {peak:g} TFLOP/s"
    message = f"A step is {flops:.3g} operations on each GPU, {_time(fast)} to {_time(slow)} at {share}"
    if run.steps:
        words = "all" if run.exact else "at most"
        message += f", and {words} {run.steps:,} steps {_time(fast * run.steps)} to {_time(slow * run.steps)}"
    yield Found("note", f"{message}.", "train.batch")


def _time(seconds: float) -> str:
    """As in "0.4 s", "12 s", "5 min", "31 h", "12 days"."""
    for most, unit, length in ((90.0, "s", 1), (5400.0, "min", 60), (72 * 3600.0, "h", 3600)):
        if seconds < most:
            return f"{seconds / length:.2g} {unit}" if seconds / length < 10 else f"{seconds / length:,.0f} {unit}"
    return f"{seconds / 86400:,.0f} days" if seconds > 10 * 86400 else f"{seconds / 86400:.2g} days"
