"""Samples that occur twice, in one index or in two: told by 8 bytes of hash each, so that a million samples take 8 MB."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Twins:
    """`count` rows repeat another one; `rows` are the first such pair, from 1. Two samples in 2**64 share a hash by chance."""

    count: int
    rows: tuple[int, int] | None = None


class Marks:
    """A mark for each row's key, in order; 0 for rows whose key is None or empty, which are like no other."""

    def __init__(self, keys: Iterable[Hashable] = ()) -> None:
        self.hashes = array("q")
        self.add(keys)

    def add(self, keys: Iterable[Hashable]) -> None:
        self.hashes.extend(hash(key) if key is not None else 0 for key in keys)

    def twins(self) -> Twins:
        """Rows whose key an earlier row has."""
        if len(set(self.hashes)) == len(self.hashes):
            return Twins(count=0)
        seen: dict[int, int] = {}
        count, pair = 0, None
        for row, mark in enumerate(self.hashes, 1):
            if mark and (earlier := seen.setdefault(mark, row)) != row:
                count, pair = count + 1, pair or (earlier, row)
        return Twins(count=count, rows=pair)

    def shared(self, others: Marks) -> Twins:
        """Rows of this index whose key a row of `others` has; the pair is (row here, row there)."""
        common = set(self.hashes).intersection(others.hashes) - {0}
        rows = [row for row, mark in enumerate(self.hashes, 1) if mark in common] if common else []
        if not rows:
            return Twins(count=0)
        return Twins(count=len(rows), rows=(rows[0], others.hashes.index(self.hashes[rows[0] - 1]) + 1))
