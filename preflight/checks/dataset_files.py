"""Are the files of the samples there?

What: 200 files of the index, drawn from its rows (of a large one its first), are looked for from the index's folder, the one above
and the working directory. None is opened. Where none at all is there, they are taken to be on the machine that trains.
Why: a missing file stops the run at the step that draws it, or is skipped in silence.
Fix: copy what is missing, or leave its rows out.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.data.seen import read


def check(case: Case) -> Answers:
    for one, found in read(case.job.spec, case.job.text_tokens):
        from preflight.data.media import look

        files = look(found.drawn, one.path)
        if files is None or not files.missing:
            continue
        looked = f"{files.looked:,} {one.word} files that were looked for"
        if files.missing == files.looked:
            yield Found("note", f"None of the {looked} is on this machine, such as {files.example}.", one.key)
        else:
            message = f"{files.missing:,} of the {looked} are not in {files.base}, such as {files.example}."
            yield Found("warning", message, one.key)
