"""Can the index of the data set be read, and each of its rows be used?

What: a CSV, JSONL, JSON or Parquet index that the config names and that is here: its form, the columns that are known, and values
that are no numbers, not finite, or not above 0. Of a large one the first rows.
Why: the trainer stops where its reader does; a row that cannot be used stops it hours later, or is trained on as something else.
Fix: the row that is named. `preflight data INDEX` shows them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from preflight.checks.case import Answers, Case, Found
from preflight.data.seen import Seen, seen
from preflight.units import count

if TYPE_CHECKING:
    from preflight.data.statistics import Statistics

WORDS = {"frames": "number of frames", "fps": "frame rate"}


def check(case: Case) -> Answers:
    for one in seen(case.job.spec, case.job.text_tokens):
        if one.refused is not None:
            yield Found(one.refused.severity, f"The {one.word} set {one.refused.message}", one.key, one.refused.fix)
        elif one.statistics is not None:
            yield from _rows(one, one.statistics)
            yield from _count(case, one, one.statistics)


def _rows(one: Seen, found: Statistics) -> Answers:
    if found.uneven is not None:
        rows, first = found.uneven
        message = f"{rows:,} of {one.of(found.rows, 'rows')} have more or fewer values than columns, the first is row {first:,}."
        yield Found("warning", message, one.key)
    for slip in found.slips:
        message = (
            f"{slip.rows:,} of {one.of(found.rows, 'rows')} have a {WORDS.get(slip.field, slip.field)} that is no number above 0,"
            f" the first is row {slip.row:,} with {slip.value}."
        )
        yield Found("warning", message, one.key)


def _count(case: Case, one: Seen, found: Statistics) -> Answers:
    schedule = case.job.spec.schedule
    name = "samples" if one.key == "paths.train" else "validation_samples"
    said = getattr(schedule, name)
    if found.whole and said is not None and said != found.rows:
        message = f"{one.path} holds {count(found.rows, 'sample')}, and the config counts its steps from {said:,}."
        yield Found("note", message, f"schedule.{name}", fix=str(found.rows))
