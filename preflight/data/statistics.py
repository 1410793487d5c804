"""What an index holds, in figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from preflight.data.balance import gini, ratio
from preflight.data.numbers import Spread
from preflight.data.sample import Slip
from preflight.data.twins import Marks, Twins
from preflight.data.words import Words

#: Seconds from which a clip is counted in each bucket, as the report of a data set divides them.
BUCKETS = (0, 10, 20, 30, 60)
STEP = 50  # characters, by which lengths of captions are counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What the run asks of a sample; None is "not said". Sizes in pixels, `tokens` the longest caption its encoder reads."""

    width: int | None = None
    height: int | None = None
    frames: int | None = None
    fps: float | None = None
    tokens: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Clips:
    """Of the `known` clips whose frames are known, `short` have fewer than the run asks; `fewest` is the least of any."""

    known: int
    short: int
    fewest: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Of the `known` samples with a resolution, `other` differ from the training size. `counts`: (width, height), most first."""

    known: int
    other: int | None
    counts: tuple[tuple[tuple[int, int], int], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Categories:
    """`counts`: most first. `unnamed` samples have no category."""

    counts: tuple[tuple[str, int], ...]
    unnamed: int

    @property
    def gini(self) -> float:
        return gini(count for _, count in self.counts)

    @property
    def ratio(self) -> float:
        return ratio(count for _, count in self.counts) or 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Captions:
    """Characters a caption. `cut` have more words than the encoder reads tokens, and a word is a token or more: a lower bound.

    `lengths` counts captions by characters, in steps of STEP.
    """

    length: Spread
    empty: int
    cut: int | None
    lengths: Mapping[int, int]
    words: Words | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """Of the `rows` read; `whole` says whether those are all. Counts of rows, unless their name says otherwise."""

    rows: int
    whole: bool
    kinds: Mapping[str, int]
    sizes: Sizes | None
    durations: Spread | None
    buckets: tuple[int, ...]
    clips: Clips | None
    categories: Categories | None
    captions: Captions | None
    correlation: float | None
    media: Twins
    samples: Twins
    uneven: tuple[int, int] | None
    slips: tuple[Slip, ...]
    marks: Marks = field(compare=False)
    drawn: tuple[str, ...]
