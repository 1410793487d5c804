"""Reductions of batch, resolution and frames that were judged again and fit; where none does, what fills the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from preflight.advice.candidates import apply, changes, grid
from preflight.advice.search import fitting
from preflight.advice.switches import switches
from preflight.finding import ConfigError, Finding
from preflight.judge import Judgement, judge_job
from preflight.report import Reduction
from preflight.spec import Spec
from preflight.units import gib

Spell = Callable[[Mapping[str, Any]], dict[str, Any]]

ALONE = (("batch",), ("frames",), ("size",))
TOGETHER = (("batch", "frames"), ("batch", "size"), ("frames", "size"), ("batch", "frames", "size"))


def reductions(judgement: Judgement, threshold: float, spell: Spell) -> tuple[tuple[Reduction, ...], tuple[Finding, ...]]:
    """Offers, cheapest first, and what to say beside them.

    Each kind alone; the kinds together only where none alone is enough. When none helps, a finding names what fills the
    memory, and the switches (caching, checkpointing, offload, sharding) that would make room; they are offered where the
    trainer has keys for them.
    """
    advisor = _Advisor(judgement=judgement, threshold=threshold, spell=spell)
    offers = tuple(advisor.offers(ALONE)) or tuple(advisor.offers(TOGETHER))
    if offers:
        return offers, ()
    words, switched = advisor.switched()
    return switched, (_filling(judgement, words),)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Advisor:
    judgement: Judgement
    threshold: float
    spell: Spell

    @property
    def spec(self) -> Spec:
        return self.judgement.case.job.spec

    def offers(self, kinds: Sequence[tuple[str, ...]]) -> Iterator[Reduction]:
        """The largest run of each kind that fits, where the trainer has keys for it."""
        accumulates = bool(self.spell({"train.accumulation": self.spec.train.accumulation + 1}))
        for kind in kinds:
            candidates = grid(self.judgement.case.job, kind, accumulates=accumulates)
            candidates.sort(key=lambda c: (c.pixels, c.frames, c.batch), reverse=True)
            specs = [apply(self.spec, c, accumulates=accumulates) for c in fitting(self.judgement.case, candidates)]
            found = self._largest(specs)
            if found is not None:
                yield from self._offer(*found, _words(self.spec, found[0]))

    def switched(self) -> tuple[str, tuple[Reduction, ...]]:
        """The fewest switches that make the run fit as it is, each with those before it: in words, and as an offer."""
        told: list[str] = []
        for words, spec in switches(self.spec):
            told.append(words)
            peak = self._peak(spec)
            if peak is not None:
                return ", ".join(told), tuple(self._offer(spec, peak, ", ".join(told)))
        return "", ()

    def _largest(self, specs: list[Spec]) -> tuple[Spec, int] | None:
        """The first of `specs`, from large to small, that fits in every phase, and its peak.

        Their training steps fit; another phase may not, and it too needs less the smaller the run: so halve the list.
        """
        low, high, found = 0, len(specs), None
        while low < high:
            middle = (low + high) // 2 if low else 0
            peak = self._peak(specs[middle])
            if peak is not None:
                found, high = (specs[middle], peak), middle
            else:
                low = middle + 1
        return found

    def _peak(self, spec: Spec) -> int | None:
        """The peak of the changed run, judged anew; None when it does not fit after all."""
        try:
            again = judge_job(self.judgement.case.job.with_spec(spec), self.threshold)
        except ConfigError:
            return None
        return again.memory.peak_bytes if again.verdict == "fits" else None

    def _offer(self, after: Spec, peak: int, words: str) -> Iterator[Reduction]:
        """The offer in the user's own keys; none where the trainer has no key for a part of it."""
        changed = changes(self.spec, after)
        if all(self.spell(part) for part in _parts(changed)):
            yield Reduction(changes=changed, keys=self.spell(changed), peak_bytes=peak, summary=words)


def _parts(changed: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What must be sayable for an offer to be: each change, the two sides of a size as one."""
    groups: dict[str, dict[str, Any]] = {}
    for path, value in changed.items():
        section, _, name = path.partition(".")
        groups.setdefault(f"{section}.size" if name in ("height", "width") else path, {})[path] = value
    yield from groups.values()


def _words(before: Spec, after: Spec) -> str:
    parts = []
    if after.train.batch != before.train.batch:
        parts.append(f"batch {before.train.batch} → {after.train.batch}")
        if after.effective_batch == before.effective_batch:
            parts.append(f"accumulation {before.train.accumulation} → {after.train.accumulation} (effective batch kept)")
        else:
            parts.append(f"effective batch {before.effective_batch} → {after.effective_batch}")
    if after.data.frames != before.data.frames:
        parts.append(f"frames {before.data.frames} → {after.data.frames}")
    if (after.data.height, after.data.width) != (before.data.height, before.data.width):
        parts.append(f"{before.data.height}×{before.data.width} → {after.data.height}×{after.data.width}")
    return ", ".join(parts)


def _filling(judgement: Judgement, would: str) -> Finding:
    memory = judgement.memory
    parts = {name: size for name, size in memory.components.items() if size}
    largest = max(parts, key=lambda name: parts[name] or 0)
    message = (
        f"No smaller batch, resolution or number of frames fits: in the {memory.peak_phase} phase {largest} alone take "
        f"{gib(parts[largest] or 0)} of the {gib(memory.usable_bytes or 0)} that are usable."
    )
    fix = f"it would fit as it is with {would}" if would else "a larger GPU, or more of them with the weights sharded"
    return Finding(id="no-reduction", severity="error", message=message, fix=fix)
