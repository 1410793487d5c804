"""What every reader gives: an index in pieces, so that none is ever whole in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from preflight.data.columns import columns

ROWS = 2_000  # rows of a piece: a few MB of captions


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Rows of values in the order of `names`. `first` is the number of the first, from 1.

    `uneven` are the numbers of those with too few or too many values. `done` of `total` (bytes, or rows of a Parquet file) have
    been read with it.
    """

    names: Sequence[str]
    rows: Sequence[Sequence[Any]]
    first: int
    done: int
    total: int
    uneven: tuple[int, ...] = ()


def batch(records: Sequence[Mapping[str, Any]], *, first: int, done: int, total: int) -> Batch:
    """Records that need not have the same keys as one batch, with the keys that are known."""
    keys = dict.fromkeys(key for record in records for key in record)
    names = [name for spelt in columns(keys).values() for name in spelt]
    rows = [[record.get(name) for name in names] for record in records]
    return Batch(names=names, rows=rows, first=first, done=done, total=total)
