"""Whether changed runs fit: one by one exactly, and a whole grid of shapes in one walk of the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from preflight.advice.candidates import Candidate, present
from preflight.advice.moves import AXES, Move
from preflight.checks.case import Case
from preflight.finding import ConfigError
from preflight.job import Job
from preflight.judge import Judgement, judge_job
from preflight.memory.budget import budget
from preflight.spec import Spec

LIMIT = 20_000  # candidates a walk; more would only be finer than anybody asks


def fitting(case: Case, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those whose training step may meet both rules, in the order given: what torch allocates does, gaps between blocks aside."""
    import numpy as np

    if not candidates or case.limits is None:
        return []
    candidates = candidates[:: -(-len(candidates) // LIMIT)]
    batch, frames, height, width = (
        np.array([getattr(candidate, name) for candidate in candidates], dtype=np.int64)
        for name in ("batch", "frames", "height", "width")
    )
    alike: list[tuple[Any, Any]] = [(slice(None), frames)]
    if case.model.network.each_frame:
        alike = [(frames == count, int(count)) for count in np.unique(frames)]
    fits = np.zeros(batch.shape, dtype=bool)
    for where, count in alike:
        shape = replace(case.job.shape, batch=batch[where], frames=count, height=height[where], width=width[where])
        need = budget(case.job, case.model, shape)
        fits[where] = case.limits.hold(need.least(need.step), need.activations)
    return [candidate for candidate, ok in zip(candidates, fits, strict=True) if ok]


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """Judges changed specs of one job, each once."""

    job: Job
    threshold: float
    known: dict[str, Judgement | None] = field(default_factory=dict)
    errors: dict[str, set[str]] = field(default_factory=dict)

    def judged(self, spec: Spec) -> Judgement | None:
        """The changed run, judged anew; None where it cannot be computed."""
        key = repr(spec)
        if key not in self.known:
            try:
                self.known[key] = judge_job(self.job.with_spec(spec), self.threshold)
            except ConfigError:
                self.known[key] = None
        return self.known[key]

    def fits(self, spec: Spec) -> bool:
        judgement = self.judged(spec)
        return judgement is not None and judgement.verdict == "fits"

    def passes(self, spec: Spec) -> bool:
        """Whether the changed run fits, and no check finds an error in it that it does not find in the run as it is."""
        return self.fits(spec) and self._errors(spec) <= self._errors(self.job.spec)

    def _errors(self, spec: Spec) -> set[str]:
        key, judgement = repr(spec), self.judged(spec)
        if key not in self.errors and judgement is not None:
            self.errors[key] = {finding.id for finding in judgement.findings if finding.severity == "error"}
        return self.errors.get(key, set())

    def peak(self, spec: Spec) -> int:
        """What the worst phase of a run needs that could be judged."""
        judgement = self.judged(spec)
        return (judgement.memory.peak_bytes or 0) if judgement is not None else 2**63

    def fully(self, spec: Spec, moves: Sequence[Move]) -> Spec | None:
        """`spec` with the last step of each move, or None where one of them has none."""
        for move in moves:
            job = self.job.with_spec(spec)
            values = move.values(job)
            if not values:
                return None
            spec = move.apply(job, values[-1])
        return spec

    def settled(self, moves: Sequence[Move]) -> Spec | None:
        """The run with all of `moves`, each in its least step with which it fits, or None when not even the last ones do.

        The dearest is settled first, with those before it in full; then the next, and so on: what is cheap is spent before what
        is dear.
        """
        full = self.fully(self.job.spec, moves)
        if full is None or not self.fits(full):
            return None
        chosen: list[Any] = []
        for index in reversed(range(len(moves))):
            before = self.fully(self.job.spec, moves[:index])
            assert before is not None
            value = self._least(before, moves[index:], chosen)
            if value is None:
                return None
            chosen.insert(0, value)
        made = self._made(self.job.spec, moves, chosen)
        return made if self.passes(made) else None

    def largest(self, move: Move) -> Spec | None:
        """The run with the last of the move's values, which come smallest first, that fits; None where the first does not."""
        values = self._walked(self.job.spec, move, move.values(self.job))
        low, high, found = 0, len(values), None
        while low < high:
            middle = (low + high) // 2
            spec = move.apply(self.job, values[middle])
            if self.fits(spec):
                low, found = middle + 1, spec
            else:
                high = middle
        return found

    def _made(self, spec: Spec, moves: Sequence[Move], values: Sequence[Any]) -> Spec:
        for move, value in zip(moves, values, strict=True):
            spec = move.apply(self.job.with_spec(spec), value)
        return spec

    def _least(self, before: Spec, moves: Sequence[Move], later: Sequence[Any]) -> Any | None:
        """The first value of the first of `moves` on `before` with which the run fits, the others at their values `later`.

        Another phase than the step needs less, too, the further the move goes: so the list is halved.
        """
        values = list(moves[0].values(self.job.with_spec(before)))
        if moves[0].shape and not later:
            values = self._walked(before, moves[0], values)
        low, high, found = 0, len(values), None
        while low < high:
            middle = (low + high) // 2 if low else 0
            if self.fits(self._made(before, moves, (values[middle], *later))):
                found, high = values[middle], middle
            else:
                low = middle + 1
        if found is None or len(moves[0].shape) <= len(AXES):
            return found
        return self._stretched(found, values, lambda value: self.fits(self._made(before, moves, (value, *later))))

    @staticmethod
    def _stretched(found: Any, values: Sequence[Any], fits: Callable[[Any], bool]) -> Any:
        """`found` with as many frames, and then as large a size, as still fit: of shapes as large not all need as much."""
        for same in (slice(1, None), slice(1)):
            alike = [value for value in values if value[same] == found[same]]
            for value in reversed(alike[: alike.index(found)]):
                if not fits(value):
                    break
                found = value
        return found

    def _walked(self, before: Spec, move: Move, values: Sequence[Any]) -> list[Any]:
        """Those of the move's `values` whose training step fits."""
        judgement = self.judged(before)
        if judgement is None:
            return list(values)
        now = present(before)
        shapes = {replace(now, **dict(zip(move.shape, value, strict=True))): value for value in values}
        return [shapes[shape] for shape in fitting(judgement.case, tuple(shapes))]
