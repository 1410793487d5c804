"""Does the text encoder read the captions to their end?

What: captions of more words than the tokens that are read, and captions that are empty. A word is a token or more, so at least
these are cut. Of a large index the first rows.
Why: what stands after the last token that is read was written, paid for and never trained; without a caption a sample teaches what
guidance subtracts.
Fix: shorter captions, or more tokens where the encoder takes them.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.data.balance import share
from preflight.data.seen import read

MANY = 0.05  # of the captions: fewer are outliers, which every large set has


def check(case: Case) -> Answers:
    tokens = case.job.text_tokens
    if not tokens:
        return
    for one, found in read(case.job.spec, tokens):
        captions = found.captions
        if captions is None:
            continue
        rows = one.of(found.rows, "captions")
        if captions.cut:
            part = share(captions.cut, found.rows)
            message = f"{captions.cut:,} of {rows} ({part}) are cut: they have more words than the {tokens} tokens that are read."
            yield Found("warning" if captions.cut > MANY * found.rows else "note", message, one.key)
        if captions.empty:
            severe = captions.empty > MANY * found.rows
            yield Found("warning" if severe else "note", f"{captions.empty:,} of {rows} are empty.", one.key)
