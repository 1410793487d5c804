"""Does the training set hold the same sample twice?

What: rows that name a file, or where there are no files a caption, that an earlier row names. Of a large index the first rows.
Why: a sample that is there twice counts twice; and where it was not meant, the samples it was counted instead of are missing.
Fix: leave them out, unless they are there on purpose: another caption of the same clip is.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.data.seen import read


def check(case: Case) -> Answers:
    for one, found in read(case.job.spec, case.job.text_tokens):
        if found.media.rows is None:
            continue
        earlier, later = found.media.rows
        rows = f"{found.media.count:,} of {one.of(found.rows, 'samples')}"
        same = "all with" if found.samples.count == found.media.count else f"{found.samples.count:,} of them with"
        message = f"{rows} are there before, {same} the same caption, the first is row {later:,}, which is row {earlier:,}."
        yield Found("note", message, one.key)
