"""Is the validation set unseen in training?

What: samples of the validation set that the training set has, too, by their files, or by their captions where there are no files.
Of large indexes the first rows.
Why: a loss on samples that are trained on falls whatever the network has learnt, so nothing tells when it only remembers.
Fix: leave them out of one of the two.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.data.balance import share
from preflight.data.seen import read


def check(case: Case) -> Answers:
    sets = {one.key: (one, found) for one, found in read(case.job.spec, case.job.text_tokens)}
    if len(sets) < 2:
        return
    (train, trained), (one, found) = sets["paths.train"], sets["paths.validation"]
    if train.path == one.path:
        yield Found("warning", f"{one.path} is the training set and the validation set.", one.key)
        return
    common = found.marks.shared(trained.marks)
    if common.rows is None:
        return
    mine, its = common.rows
    message = (
        f"{'At least ' if train.cut else ''}{common.count:,} of {one.of(found.rows, 'samples')}"
        f" ({share(common.count, found.rows)}) are in the training set, too: row {mine:,} is its row {its:,}."
    )
    yield Found("warning", message, one.key)
