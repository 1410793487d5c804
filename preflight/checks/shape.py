"""Can the network take these frames and this resolution?

What: frames in the steps of the VAE (4n+1 for Wan), height and width in multiples of VAE stride times patch.
Why: other sizes are cut off or refused by the trainer, sometimes only after the weights are loaded.
Fix: the nearest legal size.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found

DECIDES = True  # an error here leaves the memory unknown


def check(case: Case) -> Answers:
    data, steps = case.job.spec.data, case.job.steps
    if data.frames % steps.frames != steps.frames_offset % steps.frames:
        nearest = steps.frames_below(data.frames)
        rule = f"{steps.frames}n+{steps.frames_offset}"
        yield Found("warning", f"{data.frames} frames are not {rule}: the VAE uses {nearest}.", "data.frames")
    for name, value in (("height", data.height), ("width", data.width)):
        if value % steps.pixels:
            below, above = value // steps.pixels * steps.pixels, -(-value // steps.pixels) * steps.pixels
            message = f"{name} {value} is no multiple of {steps.pixels}, the network's step; expected {below} or {above}."
            yield Found("error", message, f"data.{name}")
