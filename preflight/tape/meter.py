"""Counts live bytes through one step, and extends what three identical blocks did to n of them.

A size may be a whole number, or a numpy array of them: then one walk answers for every element at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ROUND = 512  # bytes; c10/cuda/CUDACachingAllocator.cpp: kMinBlockSize, to which every allocation is rounded up

Size = Any  # int, or a numpy array of int64 that broadcasts with every other size of the walk


def rounded(nbytes: Size) -> Size:
    """`nbytes` as the caching allocator hands it out."""
    return -(-nbytes // ROUND) * ROUND


def somewhere(condition: Any) -> bool:
    """Whether a comparison of sizes holds for any of them."""
    return bool(condition.any()) if hasattr(condition, "any") else bool(condition)


@dataclass(slots=True)
class Part:
    """A part of the step: its peak, the gradients live at that moment, its highest activations, and what was live at its end.

    `inside` is the highest sum with what kernels take from the allocator for themselves, where they take any.
    """

    name: str
    peak: Size = 0
    gradients_at_peak: Size = 0
    activations: Size = 0
    inside: Size = 0
    end: Size = 0


class Segment:
    """A stretch of the walk that stands for `copies` identical ones in a row (the middle one of three blocks)."""

    __slots__ = ("copies",)

    def __init__(self, copies: int = 1) -> None:
        self.copies = copies


class Meter:
    """Bytes that a step adds to what is resident; gradients of parameters are counted apart as well.

    The walk is cut into segments. Within one, peaks are recorded as they happen; when one that stands for n copies ends, its net
    change happens n - 1 more times, and its peak is that of the first or the last copy, whichever stood higher.
    """

    __slots__ = (
        "_activations",
        "_gradients_at_peak",
        "_inside",
        "_peak",
        "_start",
        "_start_gradients",
        "gradients",
        "live",
        "parts",
        "segment",
    )
    _peak: Size
    _activations: Size
    _inside: Size

    def __init__(self) -> None:
        self.live: Size = 0
        self.gradients: Size = 0
        self.parts: dict[str, Part] = {}
        self.segment = Segment()
        self._open()

    def allocate(self, nbytes: Size) -> Any:
        live = self.live + nbytes
        self.live = live
        if live > self._peak:
            self._peak, self._gradients_at_peak = live, self.gradients
        activations = live - self.gradients
        if activations > self._activations:  # noqa: PLR1730  # max() would double the cost of the hottest line
            self._activations = activations

    def workspace(self, nbytes: Size) -> None:
        """A kernel that is running holds `nbytes` for itself."""
        self._inside = max(self._inside, self.live + nbytes)

    def free(self, nbytes: Size) -> None:
        self.live = self.live - nbytes

    def aside(self, block: Any, stream: int) -> None:
        """What `allocate` answered was asked for on another stream than the step's own; here that is all the same."""

    def release(self, block: Any) -> None:
        """What `allocate` answered is free again; here it answers nothing."""

    def part(self, name: str) -> None:
        """Begin the part `name` of the step; the one before it ends."""
        self.begin(Segment())
        self.parts[name] = Part(name)

    def begin(self, segment: Segment) -> None:
        """End the running segment and begin `segment`."""
        later = self.segment.copies - 1
        net, net_gradients = (self.live - self._start) * later, (self.gradients - self._start_gradients) * later
        part = next(reversed(self.parts.values()), None)
        if part is not None:
            self._record(part, net, net_gradients)
        self.live = self.live + net
        self.gradients = self.gradients + net_gradients
        if part is not None:
            part.end = self.live
        self.segment = segment
        self._open()

    def _open(self) -> None:
        self._start, self._start_gradients = self.live, self.gradients
        self._peak, self._gradients_at_peak = self.live, self.gradients
        self._activations = self.live - self.gradients
        self._inside = 0

    def _record(self, part: Part, net: Size, net_gradients: Size) -> None:
        """Raise the part's peaks by this segment's; its last copy stands `net` above its first."""
        peak = self._peak + max(0, net)
        if peak > part.peak:
            part.peak = peak
            part.gradients_at_peak = self._gradients_at_peak + (net_gradients if net > 0 else 0)
        part.activations = max(part.activations, self._activations + max(0, net - net_gradients))
        part.inside = max(part.inside, self._inside + max(0, net))


class ArrayMeter(Meter):
    """The same over numpy arrays, element by element."""

    __slots__ = ()

    def allocate(self, nbytes: Size) -> None:
        import numpy as np

        live = self.live + nbytes
        self.live = live
        self._gradients_at_peak = np.where(live > self._peak, self.gradients, self._gradients_at_peak)
        self._peak = np.maximum(self._peak, live)
        self._activations = np.maximum(self._activations, live - self.gradients)

    def workspace(self, nbytes: Size) -> None:
        import numpy as np

        self._inside = np.maximum(self._inside, self.live + nbytes)

    def _record(self, part: Part, net: Size, net_gradients: Size) -> None:
        import numpy as np

        part.inside = np.maximum(part.inside, self._inside + np.maximum(0, net))
        peak = self._peak + np.maximum(0, net)
        gradients = self._gradients_at_peak + np.where(net > 0, net_gradients, 0)
        part.gradients_at_peak = np.where(peak > part.peak, gradients, part.gradients_at_peak)
        part.peak = np.maximum(part.peak, peak)
        part.activations = np.maximum(part.activations, self._activations + np.maximum(0, net - net_gradients))
