"""How many tokens does the network work on?

What: latent patches of one sample: frames, height and width divided by the VAE's stride and the patch. Memory of activations
grows with them, time of attention with their square.
Why: plans are made in frames and pixels, and 49 frames at 1280×720 are 46,800 tokens.
Fix: tokens that divide among the GPUs of a sequence group; elsewhere trainers pad or stop.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found


def check(case: Case) -> Answers:
    tokens, group = case.job.tokens, case.job.spec.parallel.sequence
    if not tokens:
        return
    share = f", {-(-tokens // group):,} on each of the {group} GPUs that share it" if group > 1 else ""
    yield Found("note", f"A sample is {tokens:,} tokens{share}.", "data.frames")
    if tokens % group:
        message = f"{tokens:,} tokens cannot be divided evenly among {group} sequence-parallel GPUs: trainers pad them, or stop."
        yield Found("warning", message, "parallel.sequence")
