"""Where a step stops fitting, among thousands of shapes: those near a limit are laid out in the allocator's segments one by one.

What gaps between blocks take differs from network to network (a third of a Fourier neural operator's step), and from one shape to
the next by little. So the shapes are put in the order of what they take without gaps; the place of each limit in it is found by
laying out a few, and then every shape around it, until a run of them on either side agrees. Of the others it is told from the
nearest that were laid out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from preflight.sweeping.arrays import Integers

AGREE = 12  # shapes in a row, on either side of a limit, that have to agree about it
NEAR = 0.01  # and those that come as near to it as this, as a part of it
ANCHORS = 5  # laid out wherever the limits are, from the smallest shape to the largest
FEWEST = 8  # of so many shapes all are laid out


class Edge:
    """Shapes that take `least` bytes without gaps; `lay_out` says what one of them takes from the card.

    It is asked no more often than `room` allows, the shapes nearest to a limit first.
    """

    def __init__(self, least: Integers, lay_out: Callable[[int], int], room: int) -> None:
        import numpy as np

        self.least, self.order = least, np.argsort(least, kind="stable")
        self.taken: dict[int, int] = {}  # bytes, by place in the order
        self._lay_out, self._room = lay_out, room

    @property
    def laid_out(self) -> list[int]:
        """The shapes of which it is known what they take."""
        return [int(self.order[place]) for place in self.taken]

    @property
    def gaps(self) -> float:
        """What the largest of them takes, by what it takes without gaps."""
        place = max(self.taken)
        return self.taken[place] / max(int(self.least[self.order[place]]), 1)

    def find(self, limits: Sequence[int]) -> None:
        """Lay out what has to be to tell on which side of each of `limits` a shape is."""
        count = self.order.size
        if count <= FEWEST:
            for place in range(count):
                self._at(place)
            return
        for anchor in range(ANCHORS):
            self._at(anchor * (count - 1) // (ANCHORS - 1))
        for limit in limits:
            self._around(limit)

    def all(self) -> Integers:
        """What each shape takes: as laid out, or between what the nearest two take that were."""
        import numpy as np

        places = np.array(sorted(self.taken), dtype=np.int64)
        least = self.least[self.order]
        between = np.interp(least, least[places], [self.taken[int(place)] for place in places]).astype(np.int64)
        found = np.maximum(between, least)
        found[places] = [self.taken[int(place)] for place in places]
        sizes = np.empty_like(found)
        sizes[self.order] = found
        return sizes

    def _at(self, place: int) -> int:
        if place not in self.taken:
            self.taken[place] = self._lay_out(int(self.order[place]))
        return self.taken[place]

    def _around(self, limit: int) -> None:
        """Lay out shapes to the left and to the right of the limit, until AGREE in a row are on their own side, beyond NEAR."""
        near, last = int(limit * NEAR), self.order.size - 1
        left = self._first_beyond(limit) - 1
        right, below, above = left + 1, 0, 0
        while len(self.taken) < self._room:
            goes_left, goes_right = left >= 0 and below < AGREE, right <= last and above < AGREE
            if not (goes_left or goes_right):
                return
            if goes_left:
                below = self._agreeing(below, limit - self._at(left), near)
                left -= 1
            if goes_right:
                above = self._agreeing(above, self._at(right) - limit - 1, near)
                right += 1

    @staticmethod
    def _agreeing(before: int, distance: int, near: int) -> int:
        """How many in a row are on their own side, after one that is so far on it."""
        return 0 if distance < 0 else min(before + 1, AGREE - 1 if distance < near else AGREE)

    def _first_beyond(self, limit: int) -> int:
        """A place that takes more than `limit`, the one before it not: the first, were every step to take more than the last."""
        beyond = [place for place, taken in self.taken.items() if taken > limit]
        high = min(beyond, default=self.order.size)
        low = max((place for place in self.taken if place < high), default=-1)
        turn = 0
        while high - low > 1:
            place = (low + high) // 2 if turn % 3 == 2 else self._guess(limit, low, high)
            low, high = (place, high) if self._at(place) <= limit else (low, place)
            turn += 1
        return high

    def _guess(self, limit: int, low: int, high: int) -> int:
        """Where the limit is if gaps take as much as beside the shape that comes nearest to it."""
        import numpy as np

        near = min((side for side in (low, high) if side in self.taken), key=lambda side: abs(self.taken[side] - limit))
        least = int(self.least[self.order[near]]) * limit // self.taken[near]
        guessed = int(np.searchsorted(self.least[self.order], least, side="right"))
        return min(max(guessed, low + 1), high - 1)
