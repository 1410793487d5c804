"""The shapes of a sweep on one GPU with all else the same: their peaks and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from preflight.finding import ConfigError
from preflight.job import Job
from preflight.memory.limits import Limits
from preflight.report import Verdict
from preflight.sweeping.edge import Edge
from preflight.sweeping.needs import Grid, Needs, laid_out

if TYPE_CHECKING:
    from preflight.sweeping.arrays import Codes

VERDICTS: tuple[Verdict, ...] = ("fits", "tight", "does-not-fit", "cannot-judge")
FITS, TIGHT, TOO_LARGE, UNKNOWN = range(4)
WALK = 5_000  # moves of the allocator in whose time a shape is walked
NEAR = 0.05  # of a limit
FEWEST = 24  # shapes that may be laid out whatever it takes


class Plane:
    """Bytes by the shapes' numbers, -1 where there are none, and indices into VERDICTS. `exact`: to the byte what a check says."""

    def __init__(self, work: Job, grid: Grid, needs: Sequence[Needs], cards: Limits) -> None:
        import numpy as np

        self.work, self.grid, self.cards = work, grid, cards
        count = grid.count
        self.peak, self.activations, self.least, self.beside = (np.full(count, -1, dtype=np.int64) for _ in range(4))
        self.exact, self.refused, self.known = (np.zeros(count, dtype=np.bool_) for _ in range(3))
        for part in needs:
            self.refused[part.where] = part.refused is not None
            self.exact[part.where] = part.settled or part.found is None
            if part.found is None:
                continue
            least, step, beside, activations = part.found
            self.known[part.where] = True
            self.least[part.where], self.beside[part.where], self.activations[part.where] = least, beside, activations
            self.peak[part.where] = np.maximum(step, beside)

    def settle(self, room: int) -> None:
        """Lay out those that nothing else decides, as long as that takes fewer than `room` moves of the allocator."""
        import numpy as np

        floor = np.maximum(self.least, self.beside)
        open_ = self.known & ~self.exact & (floor <= self.cards.reachable) & (self.activations <= self.cards.activations)
        places = np.flatnonzero(open_)
        if not places.size:
            return
        moves = laid_out(self.work, self.grid.shape(self.work, int(places[-1])))[1] + WALK
        edge = Edge(self.least[places], lambda n: self._laid_out(int(places[n])), max(FEWEST, room // moves))
        edge.find((self.cards.usable, self.cards.reachable))
        self.peak[places] = np.maximum(edge.all(), self.beside[places])
        self.exact[places[edge.laid_out]] = True
        rest = np.flatnonzero(self.known & ~self.exact & ~open_)
        self.peak[rest] = np.maximum((self.least[rest] * edge.gaps).astype(np.int64), self.beside[rest])

    def is_near(self, number: int) -> bool:
        """Whether a shape's peak is so near to a limit that laying it out could move it to the other side."""
        peak = int(self.peak[number])
        return any(abs(peak - limit) <= limit * NEAR for limit in (self.cards.usable, self.cards.reachable))

    def lay_out(self, number: int) -> None:
        """Settle one shape."""
        if not self.exact[number]:
            self.peak[number] = max(self._laid_out(number), int(self.beside[number]))
            self.exact[number] = True

    @property
    def verdict(self) -> Codes:
        """As judge.py has it: too large comes before what cannot be judged."""
        import numpy as np

        cards = self.cards
        codes = np.where(self.peak <= cards.usable, FITS, TIGHT)
        codes = np.where(self.refused | ~self.known, UNKNOWN, codes)
        return np.where(self.known & ((self.peak > cards.reachable) | (self.activations > cards.activations)), TOO_LARGE, codes)

    def _laid_out(self, number: int) -> int:
        try:
            return laid_out(self.work, self.grid.shape(self.work, number))[0]
        except ConfigError:  # a shape that the network refuses alone is not among those that it takes together
            self.refused[number] = True
            return int(self.least[number])
