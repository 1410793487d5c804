"""Could every phase of the run be computed?

What: a phase whose memory is not modelled is named, and the run is not judged.
Why: a run that dies while it encodes or samples is as lost as one that dies in its first step.
Fix: cache latents beforehand, or sample outside the run.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found

DECIDES = True  # an error here leaves the memory unknown


def check(case: Case) -> Answers:
    for phase in case.phases:
        if phase.peak is None:
            yield Found("error", f"Cannot judge the {phase.name} phase: {phase.reason}.")
