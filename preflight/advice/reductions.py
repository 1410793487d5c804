"""What makes a config fit that does not: offers that were judged again, and where none is found, why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import log

from preflight.advice.elsewhere import elsewhere
from preflight.advice.moves import FREE, LOSSY, SLOWER, Move, moves
from preflight.advice.said import Restate, as_read, said
from preflight.advice.search import Search
from preflight.advice.segments import segments
from preflight.advice.words import changes, loss, words
from preflight.finding import Finding
from preflight.judge import Judgement
from preflight.report import Reduction
from preflight.spec import Spec

OFFERS = 6  # as many as a person compares
JOINT = "frames and size"  # looked at where neither alone is enough
MUCH = log(1.5)  # an offer that leaves out half as many pixels again as another is not worth a line
FAR = log(4)  # nor one that leaves out three quarters of them, beside one that leaves out nothing
WIDEST = 3  # moves in one offer, before all that help are taken together


def reductions(judgement: Judgement, threshold: float, restate: Restate) -> tuple[tuple[Reduction, ...], tuple[Finding, ...]]:
    """Offers, the least costly first, and what to say beside them.

    Single changes; where none without a loss in the result is enough, the cheapest pairs of such, then triples, then all together;
    and beside them what changes the result, alone and with the moves that make the change smaller. `restate` answers None for
    changes that the trainer has no keys for. Where nothing helps, a finding names what fills the memory and where it would fit.
    """
    advisor = _Advisor(search=Search(job=judgement.case.job, threshold=threshold), restate=restate)
    found = advisor.offers()
    aside = tuple(segments(judgement, threshold))
    if found:
        return tuple(found), aside
    return (), (elsewhere(judgement, threshold, advisor.furthest()), *aside)


Sets = list[tuple[Move, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Advisor:
    search: Search
    restate: Restate

    @property
    def spec(self) -> Spec:
        return self.search.job.spec

    def offers(self) -> list[Reduction]:
        """At most OFFERS, in the order of what they cost."""
        known = self._moves()
        harmless = [move for move in known if move.tier < LOSSY]
        lossy = [move for move in known if move.tier == LOSSY]
        alone = self._settled((move,) for move in known if move.name != JOINT)
        found = dict(alone)
        if not any(move.tier < LOSSY for kept in alone for move in kept):
            together = self._together(harmless)
            found |= together
            found |= self._beside(harmless, lossy, whole=not together)
        if not found:
            found = self._several(harmless, lossy)
        return self._stated(found)

    def furthest(self) -> Spec:
        """The run with all that helps and that the trainer has keys for, each in its last step, as its adapter reads it."""
        known = [move for move in self._moves() if move.name != JOINT]
        for tried in (known, [move for move in known if move.tier < LOSSY]):
            chosen = self._compatible(tried)
            after = self.search.fully(self.spec, chosen)
            for move in reversed(chosen):
                fewer = tuple(other for other in chosen if other is not move)
                less = self.search.fully(self.spec, fewer)
                if less is not None and after is not None and self.search.peak(less) <= self.search.peak(after):
                    chosen, after = fewer, less
            restated = said(self.spec, after, chosen, self.restate) if after is not None else None
            helps = restated is not None and self.search.peak(restated.spec) <= self.search.peak(self.spec)
            if restated is not None and helps and not self.search.fits(restated.spec):
                return restated.spec
        return self.spec

    def _moves(self) -> list[Move]:
        """The moves that have a step, and that the trainer has keys for."""
        job = self.search.job
        found = (as_read(job, move, self.restate) for move in moves(accumulates=self._accumulates()))
        return [move for move in found if move is not None]

    def _accumulates(self) -> bool:
        """Whether the trainer has a key for accumulation, or makes up for a smaller batch by itself."""
        train = self.spec.train
        if self.restate({"train.accumulation": train.accumulation + 1}) is not None:
            return True
        alone = self.restate({"train.batch": 1}) if train.batch > 1 else None
        return alone is not None and alone.spec.train.batch == 1 and alone.spec.effective_batch == self.spec.effective_batch

    def _settled(self, sets: Iterable[tuple[Move, ...]]) -> dict[tuple[Move, ...], Spec]:
        """The sets that make the run fit; none that does without one of its moves."""
        found: dict[tuple[Move, ...], Spec] = {}
        for chosen in sets:
            if any(set(known) <= set(chosen) for known in found):
                continue
            spec = self.search.settled(chosen)
            if spec is not None:
                found[chosen] = spec
        return found

    def _together(self, harmless: Sequence[Move]) -> dict[tuple[Move, ...], Spec]:
        """The cheapest pairs of moves that leave the result as it is, else triples, else all that it takes."""
        if not self._enough(harmless):
            return {}
        needed = {move for move in harmless if not self._enough([other for other in harmless if other is not move])}
        for size in range(2, WIDEST + 1):
            sets = (chosen for chosen in combinations(harmless, size) if needed <= set(chosen))
            found = self._settled(sorted(sets, key=_tiers))
            if found:
                return dict(list(found.items())[: OFFERS // 2])
        return self._bundled(harmless, ())

    def _bundled(self, harmless: Sequence[Move], lossy: tuple[Move, ...]) -> dict[tuple[Move, ...], Spec]:
        """All that helps together, less what is not needed: the dearest is left out first."""
        chosen = self._compatible(harmless)
        if not (chosen or lossy):
            return {}
        best = self.search.settled((*chosen, *lossy))
        if best is None:
            return {}
        for move in reversed(chosen):
            fewer = tuple(other for other in chosen if other is not move)
            spec = self.search.settled((*fewer, *lossy)) if fewer or lossy else None
            if spec is not None and loss(self.spec, spec) <= loss(self.spec, best) + 1e-9:
                chosen, best = fewer, spec
        return {(*chosen, *lossy): best}

    def _enough(self, harmless: Sequence[Move]) -> bool:
        """Whether all of the moves together, in full, make the run fit."""
        full = self.search.fully(self.spec, self._compatible(harmless))
        return full is not None and self.search.fits(full)

    def _compatible(self, harmless: Sequence[Move]) -> tuple[Move, ...]:
        """Those of the moves that still have a step after the ones before them."""
        chosen: tuple[Move, ...] = ()
        for move in harmless:
            if self.search.fully(self.spec, (*chosen, move)) is not None:
                chosen = (*chosen, move)
        return chosen

    def _beside(self, harmless: Sequence[Move], lossy: Sequence[Move], *, whole: bool) -> dict[tuple[Move, ...], Spec]:
        """Changes to the result made smaller by moves that leave it alone.

        With what is free, with the one that saves most, and where those that are not lossy cannot do it, with all of them.
        """
        free = [move for move in harmless if move.tier == FREE]
        saving = sorted(harmless, key=lambda move: self.search.peak(self.search.fully(self.spec, (move,)) or self.spec))
        found: dict[tuple[Move, ...], Spec] = {}
        for change in lossy:
            if change.name == JOINT and (found or not whole):
                continue
            found |= self._bundled(free, (change,))
            found |= self._settled((helper, change) for helper in saving[:1])
            found |= self._bundled(harmless, (change,)) if whole else {}
        return found

    def _several(self, harmless: Sequence[Move], lossy: Sequence[Move]) -> dict[tuple[Move, ...], Spec]:
        """Two changes to the result at once, else three, where no single one is enough, with what leaves the result alone."""
        changes = [move for move in lossy if move.name != JOINT]
        for size in range(2, WIDEST + 1):
            found: dict[tuple[Move, ...], Spec] = {}
            for several in combinations(changes, size):
                if self._enough((*harmless, *several)):
                    found |= self._bundled(harmless, several)
            if found:
                return found
        return {}

    def _stated(self, found: Mapping[tuple[Move, ...], Spec]) -> list[Reduction]:
        """The offers that the trainer has keys for, judged again from what its adapter makes of them."""
        order = sorted(found, key=lambda chosen: (round(loss(self.spec, found[chosen]), 2), *_tiers(chosen)))
        offers: list[Reduction] = []
        kinds: set[frozenset[object]] = set()
        harmless = any(loss(self.spec, spec) == 0 for spec in found.values())
        for chosen in order:
            far = harmless and loss(self.spec, found[chosen]) > FAR
            if far or _kinds(chosen) in kinds or self._outdone(chosen, found):
                continue
            made = offer(self.search, found[chosen], chosen, self.restate)
            if made is not None and all(made.changes != other.changes for other in offers):
                offers.append(made)
                kinds.add(_kinds(chosen))
            if len(offers) == OFFERS:
                break
        return offers

    def _outdone(self, chosen: tuple[Move, ...], found: Mapping[tuple[Move, ...], Spec]) -> bool:
        """Whether another set changes the same of the result by much less, or as little with fewer moves."""
        cost, lossy = loss(self.spec, found[chosen]), _lossy(chosen)
        same = {other: loss(self.spec, spec) for other, spec in found.items() if other != chosen and _lossy(other) == lossy}
        return any(cost - less > MUCH or (set(other) < set(chosen) and cost >= less) for other, less in same.items())


def offer(search: Search, after: Spec, chosen: Sequence[Move], restate: Restate) -> Reduction | None:
    """The offer of `after` as the trainer's adapter reads it from the user's keys; None where it has no keys or does not fit."""
    before = search.job.spec
    restated = said(before, after, chosen, restate)
    if restated is None or not search.passes(restated.spec):
        return None
    return Reduction(
        changes=changes(before, restated.spec),
        keys=restated.keys,
        peak_bytes=search.peak(restated.spec),
        summary=words(before, restated.spec),
    )


def _lossy(chosen: Sequence[Move]) -> set[str]:
    return {move.name for move in chosen if move.tier == LOSSY}


def _kinds(chosen: Sequence[Move]) -> frozenset[object]:
    """What a set of moves is besides the steps: narrow weights are one kind in whichever form they are kept."""
    return frozenset(move.needs if move.tier == LOSSY else move.name for move in chosen)


def _tiers(chosen: Sequence[Move]) -> tuple[int, int, int]:
    """What a set of moves costs: how much slower, how many moves, and the order of the table."""
    slower = [move for move in chosen if move.tier >= SLOWER]
    return (len(slower), len(chosen), sum(_ORDER.index(move.name) for move in slower) or sum(_ORDER.index(m.name) for m in chosen))


_ORDER = tuple(move.name for move in moves(accumulates=True))
