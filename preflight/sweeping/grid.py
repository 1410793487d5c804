"""Every point of a sweep: its peak and its verdict, from one walk of the step for thousands of shapes.

A sweep of few points says of each exactly what a check of it says; of many, what its allocator takes beyond what it hands out is a
published share (overhead.FRAGMENTATION_MOST).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from preflight import catalog, checks
from preflight.checks.case import Case
from preflight.finding import ConfigError
from preflight.job import Job, job
from preflight.memory.budget import budget
from preflight.memory.limits import limits
from preflight.memory.phases import phases
from preflight.memory.pipeline import busiest
from preflight.networks.network import Shape
from preflight.report import Verdict
from preflight.spec import Spec
from preflight.sweeping.axes import CHANGES, SHAPES, Axis

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Integers = npt.NDArray[np.int64]
    Codes = npt.NDArray[np.int8]

VERDICTS: tuple[Verdict, ...] = ("fits", "tight", "does-not-fit", "cannot-judge")
FITS, TIGHT, TOO_LARGE, UNKNOWN = range(4)
EXACT = 64  # so many points are laid out one by one in the allocator's segments, as in a check; of more, gaps are a share
CHUNK = 16_384  # points a walk: their arrays stay in the processor's cache
Progress = Callable[[int, int], None]  # points done, of all


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """The answers over GPUs x axes: bytes, -1 where there are none, and indices into VERDICTS.

    `usable` has one number for each GPU and value of the axes that are not shapes, broadcast over the rest. `reason` is why a point
    could not be judged, where one could not.
    """

    gpus: tuple[catalog.Gpu, ...]
    axes: tuple[Axis, ...]
    peak: Integers
    activations: Integers
    usable: Integers
    verdict: Codes
    reason: str | None

    def frontier(self) -> npt.NDArray[np.bool_]:
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
    import numpy as np

    ordered = (*(a for a in axes if not a.is_shape), *(a for a in axes if a.is_shape))
    size = (len(gpus), *(len(a.values) for a in ordered))
    outer = [a for a in ordered if not a.is_shape]
    shapes = [a for a in ordered if a.is_shape]
    peak, activations = np.full(size, -1, dtype=np.int64), np.full(size, -1, dtype=np.int64)
    usable, verdict = np.zeros(size, dtype=np.int64), np.full(size, UNKNOWN, dtype=np.int8)
    reason: str | None = None
    done, total = 0, int(np.prod(size))
    groups, chunk = (_alike(gpus), CHUNK) if total > EXACT else ([[index] for index in range(len(gpus))], 1)
    for at in product(*(range(len(a.values)) for a in outer)):
        changed = spec
        for one, index in zip(outer, at, strict=True):
            changed = CHANGES[one.name](changed, one.values[index])
        for alike in groups:
            work = job(changed, gpus[alike[0]])
            for where, needs, acts, problem in _walked(work, shapes, chunk):
                reason = reason or problem
                for index in alike:
                    cards = limits(gpus[index], changed.parallel, threshold)
                    place = (index, *at)
                    usable[place] = cards.usable
                    if needs is None or acts is None:
                        continue
                    codes = np.where(needs <= cards.usable, FITS, np.where(needs <= cards.reachable, TIGHT, TOO_LARGE))
                    codes = np.where(acts > cards.activations, TOO_LARGE, codes)
                    peak[place].reshape(-1)[where], activations[place].reshape(-1)[where] = needs, acts
                    verdict[place].reshape(-1)[where] = codes
                done += len(where) * len(alike)
                progress(min(done, total), total)
    return Sweep(gpus=tuple(gpus), axes=ordered, peak=peak, activations=activations, usable=usable, verdict=verdict, reason=reason)


def _alike(gpus: Sequence[catalog.Gpu]) -> list[list[int]]:
    """The GPUs by what a walk depends on of them: the kernels that run there, and their workspaces."""
    groups: dict[Any, list[int]] = {}
    for index, gpu in enumerate(gpus):
        groups.setdefault((gpu.flash_attention, gpu.bf16, gpu.architecture), []).append(index)
    return list(groups.values())


Walked = tuple["Integers", "Integers | None", "Integers | None", "str | None"]


def _walked(work: Job, axes: Sequence[Axis], chunk: int) -> Iterator[Walked]:
    """Indices of at most `chunk` points of the grid of shapes, their peaks and activations, or why they have none; all once."""
    import numpy as np

    grids = np.meshgrid(*(np.arange(len(a.values)) for a in axes), indexing="ij") if axes else [np.zeros(1, dtype=np.int64)]
    data = work.spec.data
    now = {"batch": work.spec.train.batch, "frames": data.frames, "height": data.height, "width": data.width}
    sizes = {name: np.full(grids[0].size, value, dtype=np.int64) for name, value in now.items()}
    for one, grid in zip(axes, grids, strict=False):
        table = np.array([value if isinstance(value, tuple) else (value,) for value in one.values], dtype=np.int64)
        for column, name in enumerate(SHAPES[one.name]):
            sizes[name] = table[grid.reshape(-1), column]
    step = work.steps.pixels
    legal = (sizes["height"] % step == 0) & (sizes["width"] % step == 0)
    illegal = np.flatnonzero(~legal)
    if illegal.size:
        yield illegal, None, None, f"height and width must be multiples of {step}, the network's step"
    for frames in np.unique(sizes["frames"]):
        alike = np.flatnonzero(legal & (sizes["frames"] == frames))
        for start in range(0, alike.size, chunk):
            where = alike[start : start + chunk]
            chosen = (sizes[name][where] for name in ("batch", "height", "width"))
            batch, height, width = chosen if chunk > 1 else (int(size[0]) for size in chosen)
            shape = replace(work.shape, batch=batch, frames=int(frames), height=height, width=width)
            yield (where, *_judged(work, shape))


def _judged(work: Job, shape: Shape) -> tuple[Integers | None, Integers | None, str | None]:
    """Peaks and activations of the shapes, or why they cannot be judged."""
    import numpy as np

    try:
        model = busiest(work)
        need = budget(work, model, shape)
        found = tuple(phases(work, model, need, shape))
        refused = _refused(work, shape)
    except ConfigError as problem:
        return None, None, problem.findings[0].message
    unknown = [phase for phase in found if phase.peak is None]
    if unknown or refused:
        return None, None, refused or f"Cannot judge the {unknown[0].name} phase: {unknown[0].reason}."
    count = np.broadcast_shapes(np.shape(shape.batch), np.shape(shape.height))
    peaks = [np.broadcast_to(need.reserve(phase.peak), count) for phase in found if phase.peak is not None]
    return np.maximum.reduce(peaks), np.broadcast_to(need.activations, count), None


def _refused(work: Job, shape: Shape) -> str | None:
    """The error of a check that holds for the first of the shapes, and so for all: sizes off the grid are told apart before."""
    import numpy as np

    spec = work.spec
    batch, height, width = (int(np.ravel(size)[0]) for size in (shape.batch, shape.height, shape.width))
    data = replace(spec.data, frames=shape.frames, height=height, width=width)
    first = work.with_spec(replace(spec, data=data, train=replace(spec.train, batch=batch)))
    model = busiest(first)
    need = budget(first, model)
    case = Case(job=first, model=model, budget=need, phases=tuple(phases(first, model, need)), limits=None)
    return next((finding.message for finding in checks.run(case, deciding=True) if finding.severity == "error"), None)
