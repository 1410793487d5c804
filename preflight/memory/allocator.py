"""Torch's caching allocator in miniature: how much it takes from the card to serve a step, gaps between its blocks included.

c10/cuda/CUDACachingAllocator.cpp. Requests are rounded up to 512 bytes; those up to 1 MiB live in segments of 2 MiB, those under
10 MiB in segments of 20 MiB, larger ones in segments of their own size rounded up to 2 MiB. A request takes the smallest free block
that holds it (the lowest of those); what is left of the block is split off if it is worth it, and free neighbours are merged.
Segments that are free as a whole are given back only when the card has no room for another one (release_cached_blocks).

With `expandable_segments:True` each pool is one segment that grows at its end, by 2 MiB or 20 MiB at a time, and every rest of a
block is split off (ExpandableSegment, should_split).

Each stream has pools of its own: memory that was freed on one is not given to a request of another (get_free_block).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

from preflight.tape.meter import ROUND
from preflight.tape.trace import STREAM
from preflight.units import MIB

SMALL = MIB  # kSmallSize
SMALL_SEGMENT = 2 * MIB  # kSmallBuffer
LARGE_SEGMENT = 20 * MIB  # kLargeBuffer
OWN_SEGMENT = 10 * MIB  # kMinLargeAlloc
ROUND_LARGE = 2 * MIB  # kRoundLarge

# inside, sizes and addresses are counted in units of 512 bytes; a free block is one number, its size before its address
_SHIFT = 40
_ADDRESS = (1 << _SHIFT) - 1
_WORTH = SMALL // ROUND  # a large block keeps a rest up to this
_POOL = 1 << (_SHIFT - 4)  # addresses of a pool: there is a large and a small one for each stream, and they never touch
_STREAMS = 3
_BYTES = (1 << STREAM) - 1


Block = tuple[int, int, int]
"""A stretch of a segment that is in use: where it starts and ends, in units of 512 bytes, and its pool."""


class OutOfMemory(Exception):  # noqa: N818  # torch.OutOfMemoryError
    """The card has no room for another segment."""


class Allocator:
    """Serves requests from a card of `limit` bytes, or from one that never runs out."""

    __slots__ = ("_ends", "_expandable", "_free", "_limit", "_next", "_peak", "_segments", "_starts", "_taken")

    def __init__(self, *, expandable: bool = False, limit: int | None = None) -> None:
        self._expandable = expandable
        self._limit = None if limit is None else limit // ROUND
        self._taken = self._peak = 0
        self._segments: dict[int, int] = {}  # where each ends, by where it starts
        # of the large and of the small pool of each stream, in order of size and address
        self._free: tuple[list[int], ...] = tuple([] for _ in range(2 * _STREAMS))
        self._next = [pool * _POOL for pool in range(2 * _STREAMS)]  # where each pool's next segment begins
        self._starts: dict[int, int] = {}  # free blocks: where they end by where they start, and the other way round
        self._ends: dict[int, int] = {}

    @property
    def reserved(self) -> int:
        """The most that was taken from the card at once, in bytes."""
        return self._peak * ROUND

    def allocate(self, nbytes: int) -> Block:
        """A block of `nbytes`, from a new segment where no free block holds it. Raises OutOfMemory."""
        blocks: list[Block] = []
        self.serve((max(nbytes, 1),), blocks)
        return blocks[0]

    def release(self, block: Block) -> None:
        """Give `block` back, merged with free neighbours."""
        self.serve((~0,), [block])

    def serve(self, moves: Iterable[int], blocks: list[Block]) -> None:
        """Every move in order: a request (trace.py: Moves) adds to `blocks`, ~n gives the n-th of them back. Raises OutOfMemory."""
        # written for speed: a run asks some hundred thousand times
        starts, ends, pools = self._starts, self._ends, self._free
        worth = (0 if self._expandable else _WORTH, 0) * _STREAMS
        add = blocks.append
        for move in moves:
            if move < 0:
                start, end, pool = blocks[~move]
                free = pools[pool]
                if start in ends:  # the block before is free
                    before = ends.pop(start)
                    del free[bisect_left(free, (start - before) << _SHIFT | before)]
                    start = before
                if end in starts:  # the one behind is
                    after = starts.pop(end)
                    del free[bisect_left(free, (after - end) << _SHIFT | end)]
                    end = after
                insort(free, (end - start) << _SHIFT | start)
                starts[start] = end
                ends[end] = start
                continue
            pool = 0
            if move > _BYTES:
                pool = 2 * (move >> STREAM)
                move &= _BYTES  # noqa: PLW2901
            size = -(-move // ROUND) or 1
            if move <= SMALL:
                pool += 1
            free = pools[pool]
            index = bisect_left(free, size << _SHIFT)
            if index < len(free):
                start = free.pop(index) & _ADDRESS
                end = starts.pop(start)
            else:
                start, end = self._segment(move, size, pool)
            stop = start + size
            rest = end - stop
            if rest > worth[pool]:
                insort(free, rest << _SHIFT | stop)
                starts[stop] = end
                ends[end] = stop
                add((start, stop, pool))
            else:
                ends.pop(end, None)
                add((start, end, pool))

    def _segment(self, nbytes: int, size: int, pool: int) -> tuple[int, int]:
        """Start and end of new memory for a request, in units."""
        start = self._next[pool]
        if self._expandable:
            return self._grown(start, size, pool)
        segment = SMALL_SEGMENT if pool % 2 else LARGE_SEGMENT if nbytes < OWN_SEGMENT else -(-nbytes // ROUND_LARGE) * ROUND_LARGE
        end = start + segment // ROUND
        self._take(end - start)
        self._segments[start] = end
        self._next[pool] = end + 1  # segments do not touch
        return start, end

    def _take(self, size: int) -> None:
        if self._limit is not None and self._taken + size > self._limit:
            self._give_back()
            if self._taken + size > self._limit:
                raise OutOfMemory
        self._taken += size
        self._peak = max(self._peak, self._taken)

    def _give_back(self) -> None:
        """Free every segment that nothing lies in; what grows is left as it is."""
        for free in self._free:
            kept = []
            for key in free:
                start, size = key & _ADDRESS, key >> _SHIFT
                if self._segments.get(start) == start + size:
                    del self._segments[start], self._starts[start], self._ends[start + size]
                    self._taken -= size
                else:
                    kept.append(key)
            free[:] = kept

    def _grown(self, end: int, size: int, pool: int) -> tuple[int, int]:
        """The pool's one segment made longer, so that the free block at its end holds `size`."""
        step = (SMALL_SEGMENT if pool % 2 else LARGE_SEGMENT) // ROUND
        start = self._ends.pop(end, None)
        if start is None:
            start = end
        else:
            free = self._free[pool]
            del self._starts[start], free[bisect_left(free, (end - start) << _SHIFT | start)]
        more = -(-(size - (end - start)) // step) * step
        self._take(more)
        self._next[pool] = end + more
        return start, end + more
