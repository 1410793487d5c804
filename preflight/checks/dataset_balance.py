"""Are the categories of the training set even?

What: the samples of each category, the largest by the smallest, and Gini's coefficient: 0 where all are equal, near 1 where one
has nearly everything. Of a large index the first rows.
Why: what is rare is seen rarely: of the smallest category the run learns least, and a validation loss hardly shows it.
Fix: draw samples by weight, or gather more of the small ones, if they matter.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.data.seen import read

UNEVEN = 10.0  # the largest category by the smallest, from which it is told


def check(case: Case) -> Answers:
    for one, found in read(case.job.spec, case.job.text_tokens):
        groups = found.categories
        if one.key != "paths.train" or groups is None or groups.ratio < UNEVEN:
            continue
        (largest, most), (smallest, least) = groups.counts[0], groups.counts[-1]
        message = (
            f"Of {one.of(found.rows, 'samples')} the largest of {len(groups.counts)} categories, {largest} ({most:,}), has"
            f" {groups.ratio:.1f} times as many as the smallest, {smallest} ({least:,}): Gini {groups.gini:.4f}."
        )
        yield Found("note", message, one.key)
