"""Reductions of batch, resolution and frames that were judged again and fit; where none does, what fills the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from preflight.advice.candidates import Candidate, apply, changes, grid
from preflight.advice.search import fitting
from preflight.advice.switches import switches
from preflight.finding import ConfigError, Finding
from preflight.judge import Judgement, judge_job
from preflight.report import Reduction
from preflight.spec import Spec
from preflight.units import gib

Spell = Callable[[Mapping[str, Any]], dict[str, Any]]

ALONE = ({"batch": True}, {"frame": True}, {"size": True})
TOGETHER = (
    {"batch": True, "frame": True},
    {"batch": True, "size": True},
    {"frame": True, "size": True},
    {"batch": True, "frame": True, "size": True},
)
TRIES = 12  # judgements of ever smaller candidates, where another phase than the step decides


def reductions(judgement: Judgement, threshold: float, spell: Spell) -> tuple[tuple[Reduction, ...], tuple[Finding, ...]]:
    """Offers, cheapest first, and what to say beside them.

    Each kind alone; the kinds together only where none alone is enough. When none helps, findings name the switches
    (offload, caching, sharding) that do, or what alone exceeds the card.
    """
    offers = tuple(_offers(judgement, threshold, spell, ALONE)) or tuple(_offers(judgement, threshold, spell, TOGETHER))
    if offers:
        return offers, ()
    return tuple(_switched(judgement, threshold, spell)), (_filling(judgement),)


def _offers(judgement: Judgement, threshold: float, spell: Spell, kinds: tuple[dict[str, bool], ...]) -> Iterator[Reduction]:
    accumulates = bool(spell({"train.accumulation": judgement.case.job.spec.train.accumulation + 1}))
    for kind in kinds:
        varied = {"batch": False, "size": False, "frame": False, **kind}
        candidates = sorted(grid(judgement.case.job, **varied), key=lambda c: (c.pixels, c.frames, c.batch), reverse=True)
        for candidate in fitting(judgement.case, candidates)[:TRIES]:
            spec = apply(judgement.case.job.spec, candidate, accumulates=accumulates)
            peak = _fits(judgement, spec, threshold)
            if peak is not None:
                yield from _reduction(judgement.case.job.spec, spec, peak, spell, _words(judgement, candidate, spec))
                break


def _fits(judgement: Judgement, spec: Spec, threshold: float) -> int | None:
    """The peak of the changed run, judged anew in every phase; None when it does not fit after all."""
    try:
        again = judge_job(judgement.case.job.with_spec(spec), threshold)
    except ConfigError:
        return None
    return again.memory.peak_bytes if again.verdict == "fits" else None


def _reduction(before: Spec, after: Spec, peak: int, spell: Spell, words: str) -> Iterator[Reduction]:
    """The offer in the user's own keys; none where the trainer has no key for a part of it."""
    changed = changes(before, after)
    if all(spell(part) for part in _parts(changed)):
        yield Reduction(changes=changed, keys=spell(changed), peak_bytes=peak, summary=words)


def _parts(changed: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What must be sayable for an offer to be: each change, the two sides of a size as one."""
    groups: dict[str, dict[str, Any]] = {}
    for path, value in changed.items():
        section, _, name = path.partition(".")
        groups.setdefault(f"{section}.size" if name in ("height", "width") else path, {})[path] = value
    yield from groups.values()


def _words(judgement: Judgement, candidate: Candidate, spec: Spec) -> str:
    before = judgement.case.job.spec
    parts = []
    if candidate.batch != before.train.batch:
        parts.append(f"batch {before.train.batch} → {candidate.batch}")
        if spec.train.accumulation == before.train.accumulation:
            parts.append(f"effective batch {before.effective_batch} → {spec.effective_batch}")
        elif spec.effective_batch == before.effective_batch:
            parts.append(f"accumulation {before.train.accumulation} → {spec.train.accumulation} (effective batch kept)")
        else:
            parts.append(f"accumulation {spec.train.accumulation} (effective batch {spec.effective_batch})")
    if candidate.frames != before.data.frames:
        parts.append(f"frames {before.data.frames} → {candidate.frames}")
    if (candidate.height, candidate.width) != (before.data.height, before.data.width):
        parts.append(f"{before.data.height}×{before.data.width} → {candidate.height}×{candidate.width}")
    return ", ".join(parts)


def _switched(judgement: Judgement, threshold: float, spell: Spell) -> Iterator[Reduction]:
    """The fewest switches that make the run fit as it is, each with those before it."""
    before = judgement.case.job.spec
    told: list[str] = []
    for words, spec in switches(before):
        told.append(words)
        peak = _fits(judgement, spec, threshold)
        if peak is not None:
            yield from _reduction(before, spec, peak, spell, ", ".join(told))
            return


def _filling(judgement: Judgement) -> Finding:
    memory = judgement.memory
    parts = {name: size for name, size in memory.components.items() if size}
    largest = max(parts, key=lambda name: parts[name] or 0)
    message = (
        f"No smaller batch, resolution or number of frames fits: {largest} alone take {gib(parts[largest] or 0)} "
        f"of the {gib(memory.usable_bytes or 0)} that are usable."
    )
    return Finding(id="no-reduction", severity="error", message=message)
