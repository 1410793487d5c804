"""What there is room for when a config fits: the largest batch, resolution and number of frames, each with the rest as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from preflight.advice import candidates
from preflight.advice.moves import LOSSY, Move, shaped
from preflight.advice.reductions import offer
from preflight.advice.said import Restate
from preflight.advice.search import Search
from preflight.job import Job
from preflight.judge import Judgement
from preflight.report import Reduction


def growth(judgement: Judgement, threshold: float, restate: Restate) -> tuple[Reduction, ...]:
    """The largest step of each kind that still fits, judged again from what the adapter makes of the user's keys.

    `restate` answers None where the trainer has no keys. Empty where there is no room for a step.
    """
    search = Search(job=judgement.case.job, threshold=threshold)
    accumulates = search.job.spec.train.accumulation > 1
    return tuple(found for move in _larger(accumulates=accumulates) for found in _grown(search, move, restate))


def _larger(*, accumulates: bool) -> Sequence[Move]:
    """The moves upward, whose values come smallest first."""

    def batches(job: Job) -> list[tuple[int]]:
        return [(batch,) for batch in candidates.larger_batches(job)]

    def frames(job: Job) -> list[tuple[int]]:
        return [(count,) for count in candidates.larger_frames(job)]

    size = ("data.height", "data.width")
    return (
        shaped("batch", LOSSY, ("train.batch",), batches, ("batch",), accumulates=accumulates),
        shaped("size", LOSSY, size, candidates.larger_sizes, ("height", "width"), accumulates=accumulates),
        shaped("frames", LOSSY, ("data.frames",), frames, ("frames",), accumulates=accumulates),
    )


def _grown(search: Search, move: Move, restate: Restate) -> Iterator[Reduction]:
    after = search.largest(move)
    if after is not None:
        made = offer(search, after, (move,), restate)
        if made is not None:
            yield made
