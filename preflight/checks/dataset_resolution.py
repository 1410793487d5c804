"""Are the samples of the training size?

What: the share of samples whose resolution in the index is another than the size that is trained, in the training set and the
validation set each for itself. Of a large index the first rows.
Why: a trainer that takes prepared data stacks samples of one size and stops at the first of another, in the first validation where
only that set was forgotten; one that resizes cuts or stretches what was not framed for this size, and takes its time.
Fix: resize those samples once, before the run, or see that the trainer crops each as it loads it.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.data.balance import share
from preflight.data.seen import read


def check(case: Case) -> Answers:
    data = case.job.spec.data
    for one, found in read(case.job.spec, case.job.text_tokens):
        sizes = found.sizes
        if sizes is None or not sizes.other:
            continue
        most, times = next((size, times) for size, times in sizes.counts if size != (data.width, data.height))
        alone = "all" if times == sizes.other else f"{times:,}"
        message = (
            f"{sizes.other:,} of {one.of(sizes.known, 'samples')}"
            f" ({share(sizes.other, sizes.known)}) are not of the training size {data.width}×{data.height},"
            f" {alone} of them {most[0]}×{most[1]}."
        )
        yield Found("warning", message, one.key, fix=f"resize them to {data.width}×{data.height}")
