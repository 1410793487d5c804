"""Every point of a sweep: its peak and its verdict, which is that of a check of it.

One walk of the step tells thousands of shapes what they need without gaps between the allocator's blocks. Where that alone decides
nothing, the shapes near the card's limits are laid out one by one, as in a check (edge.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

from preflight import catalog
from preflight.job import job
from preflight.memory.limits import limits
from preflight.spec import Spec
from preflight.sweeping.axes import CHANGES, Axis
from preflight.sweeping.needs import Grid, Needs
from preflight.sweeping.plane import TIGHT, UNKNOWN, Plane

if TYPE_CHECKING:
    from preflight.sweeping.arrays import Codes, Flags, Integers

EXACT = 64  # points that are laid out one by one wherever they are
WORK = 6_000_000  # the allocator's moves that all planes may take together, some ten seconds' worth
SHOWN = 40  # points on the frontier that are laid out in any case, as they are read
ROUNDS = 3  # which may move the frontier, so that others are shown
Progress = Callable[[int, int], None]  # points done, of all


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """The answers over GPUs x axes: bytes, -1 where there are none, and indices into VERDICTS.

    `usable` has one number for each GPU and value of the axes that are not shapes, broadcast over the rest. `exact` are those whose
    peak is to the byte what a check says; `reason` is why a point could not be judged, where one could not.
    """

    gpus: tuple[catalog.Gpu, ...]
    axes: tuple[Axis, ...]
    peak: Integers
    activations: Integers
    usable: Integers
    verdict: Codes
    exact: Flags
    reason: str | None

    @classmethod
    def blank(cls, gpus: Sequence[catalog.Gpu], axes: Sequence[Axis], reason: str | None) -> Sweep:
        """One in which nothing is known yet."""
        import numpy as np

        size = (len(gpus), *(len(a.values) for a in axes))
        return cls(
            gpus=tuple(gpus),
            axes=tuple(axes),
            peak=np.full(size, -1, dtype=np.int64),
            activations=np.full(size, -1, dtype=np.int64),
            usable=np.zeros(size, dtype=np.int64),
            verdict=np.full(size, UNKNOWN, dtype=np.int8),
            exact=np.zeros(size, dtype=np.bool_),
            reason=reason,
        )

    def put(self, place: tuple[int, ...], plane: Plane) -> None:
        """Take over the shapes of one GPU and of one value of each axis that is no shape."""
        import numpy as np

        verdict = plane.verdict
        judged = verdict != UNKNOWN
        self.usable[place] = plane.cards.usable
        for into, values in ((self.peak, plane.peak), (self.activations, plane.activations)):
            into[place] = np.where(judged, values, -1).reshape(into[place].shape)
        self.verdict[place], self.exact[place] = (values.reshape(self.verdict[place].shape) for values in (verdict, plane.exact))

    def split(self, point: Integers) -> tuple[tuple[int, ...], int]:
        """The plane of a point, and its number there."""
        import numpy as np

        outer = 1 + sum(not a.is_shape for a in self.axes)
        place, inside = tuple(map(int, point[:outer])), tuple(map(int, point[outer:]))
        return place, int(np.ravel_multi_index(inside, self.peak.shape[outer:])) if inside else 0

    def frontier(self) -> Flags:
        """The points that fit and of which the next larger on some axis does not."""
        import numpy as np

        fits = self.verdict <= TIGHT
        edge = np.zeros_like(fits)
        for axis in range(1, fits.ndim):
            low = [slice(None)] * fits.ndim
            high = [slice(None)] * fits.ndim
            low[axis], high[axis] = slice(None, -1), slice(1, None)
            edge[tuple(low)] |= fits[tuple(low)] & ~fits[tuple(high)]
        return edge


def sweep(spec: Spec, gpus: Sequence[catalog.Gpu], axes: Sequence[Axis], threshold: float, progress: Progress) -> Sweep:
    """Judge `spec` with every combination of the values of `axes` on every one of `gpus`.

    Raises ConfigError where not even the model can be looked up; a combination that cannot be judged is `cannot-judge`.
    """
    ordered = (*(a for a in axes if not a.is_shape), *(a for a in axes if a.is_shape))
    size = (len(gpus), *(len(a.values) for a in ordered))
    outer = [a for a in ordered if not a.is_shape]
    shapes = [a for a in ordered if a.is_shape]
    reason: str | None = None
    done, total = 0, prod(size)
    one_by_one = total <= EXACT
    groups = [[index] for index in range(len(gpus))] if one_by_one else _alike(gpus)
    room = WORK * prod(len(a.values) for a in shapes) // total
    planes: dict[tuple[int, ...], Plane] = {}
    for at in product(*(range(len(a.values)) for a in outer)):
        changed = spec
        for one, index in zip(outer, at, strict=True):
            changed = CHANGES[one.name](changed, one.values[index])
        for alike in groups:
            work = job(changed, gpus[alike[0]])
            grid, walked = Grid(work, shapes), list[Needs]()
            for needs in grid.needs(work, one_by_one=one_by_one):
                walked.append(needs)
                reason = reason or needs.refused
                done += len(needs.where) * len(alike)
                progress(min(done, total - 1), total)
            for index in alike:
                plane = Plane(job(changed, gpus[index]), grid, walked, limits(gpus[index], changed.parallel, threshold))
                plane.settle(room)
                planes[(index, *at)] = plane
    found = Sweep.blank(gpus, ordered, reason)
    for place, plane in planes.items():
        found.put(place, plane)
    for _ in range(ROUNDS):
        if not _settle_shown(found, planes):
            break
    progress(total, total)
    return found


def _settle_shown(found: Sweep, planes: Mapping[tuple[int, ...], Plane]) -> bool:
    """Lay out the first points of the frontier, and those next to them that do not fit; whether any was not yet."""
    import numpy as np

    fits, changed = found.verdict <= TIGHT, set()
    for point in np.argwhere(found.frontier())[:SHOWN]:
        beyond = [point + step for step in np.eye(point.size, dtype=int)[1:] if (point + step < fits.shape).all()]
        for near in (point, *(other for other in beyond if not fits[tuple(other)])):
            place, number = found.split(near)
            if not planes[place].exact[number] and planes[place].is_near(number):
                planes[place].lay_out(number)
                changed.add(place)
    for place in changed:
        found.put(place, planes[place])
    return bool(changed)


def _alike(gpus: Sequence[catalog.Gpu]) -> list[list[int]]:
    """The GPUs by what a walk depends on of them: the kernels that run there, and their workspaces."""
    groups: dict[Any, list[int]] = {}
    for index, gpu in enumerate(gpus):
        groups.setdefault((gpu.flash_attention, gpu.bf16, gpu.architecture), []).append(index)
    return list(groups.values())
