"""What the points of a sweep need, from one walk of the step for thousands of shapes, and one of them laid out as a check does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from preflight import checks
from preflight.checks.case import Case
from preflight.finding import ConfigError
from preflight.job import Job
from preflight.memory.budget import Budget, budget, largest
from preflight.memory.phases import Phase, phases
from preflight.memory.pipeline import busiest
from preflight.networks.network import Shape
from preflight.sweeping.axes import SHAPES, Axis

if TYPE_CHECKING:
    from preflight.sweeping.arrays import Integers

CHUNK = 16_384  # points a walk: their arrays stay in the processor's cache


class Bytes(NamedTuple):
    """Of each point: what the step takes, what the worst phase beside it takes, and activations at their highest.

    `least` is the step without any gaps between the allocator's blocks.
    """

    least: Integers
    step: Integers
    beside: Integers
    activations: Integers


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """Of the points `where` of a grid of shapes: their bytes, or None where none could be computed.

    Where `settled` the step is what a check says. `refused` is why the points cannot be judged, unless they are too large.
    """

    where: Integers
    found: Bytes | None = None
    settled: bool = False
    refused: str | None = None


class Grid:
    """The shapes of a sweep, numbered in the order of a nested loop over `axes`."""

    def __init__(self, work: Job, axes: Sequence[Axis]) -> None:
        import numpy as np

        grids = np.meshgrid(*(np.arange(len(a.values)) for a in axes), indexing="ij") if axes else [np.zeros(1, dtype=np.int64)]
        data = work.spec.data
        now = {"batch": work.spec.train.batch, "frames": data.frames, "height": data.height, "width": data.width}
        self.sizes = {name: np.full(grids[0].size, value, dtype=np.int64) for name, value in now.items()}
        for one, grid in zip(axes, grids, strict=False):
            table = np.array([value if isinstance(value, tuple) else (value,) for value in one.values], dtype=np.int64)
            for column, name in enumerate(SHAPES[one.name]):
                self.sizes[name] = table[grid.reshape(-1), column]

    @property
    def count(self) -> int:
        return self.sizes["batch"].size

    def needs(self, work: Job, *, one_by_one: bool) -> Iterator[Needs]:
        """Of all points, each once; `one_by_one` each is settled."""
        import numpy as np

        step, sizes = work.steps.pixels, self.sizes
        legal = (sizes["height"] % step == 0) & (sizes["width"] % step == 0)
        illegal = np.flatnonzero(~legal)
        if illegal.size:
            yield Needs(where=illegal, refused=f"height and width must be multiples of {step}, the network's step")
        chunk = 1 if one_by_one else CHUNK
        for frames, batch in product(np.unique(sizes["frames"]), np.unique(np.minimum(sizes["batch"], 2))):
            alike = np.flatnonzero(legal & (sizes["frames"] == frames) & (np.minimum(sizes["batch"], 2) == batch))
            for start in range(0, alike.size, chunk):
                where = alike[start : start + chunk]
                shape = self.shape(work, int(where[0])) if one_by_one else self._shapes(work, where, int(frames))
                yield _needs(work, where, shape)

    def shape(self, work: Job, number: int) -> Shape:
        """The shape of one point."""
        return replace(work.shape, **{name: int(size[number]) for name, size in self.sizes.items()})

    def _shapes(self, work: Job, where: Integers, frames: int) -> Shape:
        batch, height, width = (self.sizes[name][where] for name in ("batch", "height", "width"))
        # a batch of one is broadcast in places where no other is, which only a plain number tells (tensor.py: broadcast)
        return replace(work.shape, batch=1 if batch[0] == 1 else batch, frames=frames, height=height, width=width)


def laid_out(work: Job, shape: Shape) -> tuple[int, int]:
    """What the step of one shape takes from the card, as a check says it, and how many requests and releases that was found from.

    Raises ConfigError where the network does not take the shape.
    """
    need = budget(work, busiest(work), shape)
    return int(need.reserve(need.step)), need.layout.moves if need.layout is not None else 0


def _needs(work: Job, where: Integers, shape: Shape) -> Needs:
    import numpy as np

    try:
        model = busiest(work)
        need = budget(work, model, shape)
        found = tuple(phases(work, model, need, shape))
        refused = _refused(work, shape)
    except ConfigError as problem:
        return Needs(where=where, refused=problem.findings[0].message)

    def each(size: Any) -> Integers:
        return np.broadcast_to(np.asarray(size, dtype=np.int64), where.shape)

    return Needs(
        where=where,
        found=Bytes(
            least=each(need.least(need.step)),
            step=each(need.reserve(need.step)),
            beside=each(_beside(need, found)),
            activations=each(need.activations),
        ),
        settled=need.layout is None or need.layout.walked,
        refused=refused,
    )


def _beside(need: Budget, found: Sequence[Phase]) -> Any:
    return largest(0, *(need.reserve(phase.peak) for phase in found if phase.peak is not None and phase.name != "step"))


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
