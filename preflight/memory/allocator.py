"""Torch's caching allocator in miniature: how much it takes from the card to serve a step, gaps between its blocks included.

c10/cuda/CUDACachingAllocator.cpp. Requests are rounded up to 512 bytes; those up to 1 MiB live in segments of 2 MiB, those under
10 MiB in segments of 20 MiB, larger ones in segments of their own size rounded up to 2 MiB. A request takes the smallest free block
that holds it (the lowest of those); what is left of the block is split off if it is worth it, and free neighbours are merged.
Segments are never given back while nothing runs out.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Any

from preflight.tape.meter import Meter, rounded
from preflight.units import MIB

SMALL = MIB  # kSmallSize
SMALL_SEGMENT = 2 * MIB  # kSmallBuffer
LARGE_SEGMENT = 20 * MIB  # kLargeBuffer
OWN_SEGMENT = 10 * MIB  # kMinLargeAlloc
ROUND_LARGE = 2 * MIB  # kRoundLarge


class Block:
    """A stretch of a segment, free or not, between its neighbours."""

    __slots__ = ("address", "after", "before", "free", "size", "small")

    def __init__(self, size: int, address: int, *, small: bool) -> None:
        self.size, self.address, self.small, self.free = size, address, small, False
        self.before: Block | None = None
        self.after: Block | None = None


class Allocator:
    """`reserved` bytes taken from the card."""

    __slots__ = ("_pools", "reserved")

    def __init__(self) -> None:
        self.reserved = 0
        # free blocks in order of size and address: those of the large pool, those of the small one
        self._pools: tuple[list[tuple[int, int, Block]], list[tuple[int, int, Block]]] = ([], [])

    def allocate(self, nbytes: int) -> Block:
        """A block of `nbytes`, from a new segment where no free block holds it."""
        size = int(rounded(max(nbytes, 1)))
        small = size <= SMALL
        pool = self._pools[small]
        index = bisect_left(pool, (size,))
        block = pool.pop(index)[2] if index < len(pool) else self._segment(size, small=small)
        rest = block.size - size
        if (rest > 0) if small else (rest > SMALL):
            self._split(block, size)
        block.free = False
        return block

    def release(self, block: Block) -> None:
        """Give `block` back, merged with free neighbours."""
        before, after = block.before, block.after
        if before is not None and before.free:
            self._take(before)
            block = self._merge(before, block)
        if after is not None and after.free:
            self._take(after)
            block = self._merge(block, after)
        self._put(block)

    def _segment(self, size: int, *, small: bool) -> Block:
        segment = -(-size // ROUND_LARGE) * ROUND_LARGE
        if size < OWN_SEGMENT:
            segment = SMALL_SEGMENT if small else LARGE_SEGMENT
        block = Block(segment, self.reserved, small=small)
        self.reserved += segment
        return block

    def _split(self, block: Block, size: int) -> None:
        rest = Block(block.size - size, block.address + size, small=block.small)
        rest.before, rest.after = block, block.after
        if block.after is not None:
            block.after.before = rest
        block.after, block.size = rest, size
        self._put(rest)

    def _merge(self, first: Block, second: Block) -> Block:
        first.size += second.size
        first.after = second.after
        if second.after is not None:
            second.after.before = first
        return first

    def _put(self, block: Block) -> None:
        block.free = True
        insort(self._pools[block.small], (block.size, block.address, block))

    def _take(self, block: Block) -> None:
        pool = self._pools[block.small]
        pool.pop(bisect_left(pool, (block.size, block.address)))


class AllocatorMeter(Meter):
    """Counts as every meter does, and serves each storage from `allocator`."""

    __slots__ = ("allocator",)

    def __init__(self, allocator: Allocator) -> None:
        self.allocator = allocator
        super().__init__()

    def allocate(self, nbytes: Any) -> Block:
        super().allocate(nbytes)
        return self.allocator.allocate(int(nbytes))

    def release(self, block: Any) -> None:
        self.allocator.release(block)

    def workspace(self, nbytes: Any) -> None:
        super().workspace(nbytes)
        self.allocator.release(self.allocator.allocate(int(nbytes)))
