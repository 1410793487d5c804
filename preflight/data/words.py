"""The words of captions, as white space divides them, in lower case."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from preflight.data.numbers import Spread, spread

MOST = 2_000_000  # different words that are kept, some 200 MB; 170,000 Korean captions have a quarter of that
FREQUENT = 10
PIECE = 500_000  # words that are sorted at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """Words a caption, their type-token ratio (different words by all), and the vocabulary of all captions together.

    `distinct` is a lower bound where `cut` is true: MOST were counted and further ones left.
    """

    length: Spread
    ratio: Spread
    tokens: int
    distinct: int
    cut: bool
    frequent: tuple[tuple[str, int], ...]

    @property
    def whole(self) -> float:
        """The type-token ratio of all captions as one text."""
        return self.distinct / self.tokens


class Vocabulary:
    """Counts the words of captions as they stream by.

    A dictionary of half a million words misses the processor's cache at every word. So words are collected as hashes, many of
    them sorted at once, and merged into sorted arrays; only a word that is new is kept as text.
    """

    def __init__(self, most: int = MOST) -> None:
        import numpy as np

        self.np: Any = np
        self.most, self.cut = most, False
        self.lengths, self.ratios = array("l"), array("d")
        self.waiting: list[str] = []
        self.hashes, self.counts = np.empty(0, np.int64), np.empty(0, np.int64)
        self.places = np.empty(0, np.int64)  # of each hash's word in texts
        self.texts: list[str] = []

    def add(self, captions: Iterable[str]) -> None:
        for caption in captions:
            words = caption.lower().split()
            if words:
                self.lengths.append(len(words))
                self.ratios.append(len(set(words)) / len(words))
                self.waiting += words
                if len(self.waiting) >= PIECE:
                    self._merge()

    def words(self) -> Words | None:
        """None where no caption has a word."""
        self._merge()
        length, ratio = spread(self.lengths), spread(self.ratios)
        if length is None or ratio is None:
            return None
        return Words(
            length=length,
            ratio=ratio,
            tokens=sum(self.lengths),
            distinct=len(self.texts),
            cut=self.cut,
            frequent=self._frequent(),
        )

    def _merge(self) -> None:
        np, words = self.np, self.waiting
        if not words:
            return
        marks = np.fromiter(map(hash, words), np.int64, len(words))
        marks, at, counts = np.unique(marks, return_index=True, return_counts=True)
        place = np.searchsorted(self.hashes, marks)
        known = np.zeros(len(marks), bool)
        inside = place < len(self.hashes)
        known[inside] = self.hashes[place[inside]] == marks[inside]
        self.counts[place[known]] += counts[known]
        new = ~known
        room = self.most - len(self.texts)
        if new.sum() > room:
            self.cut = True
            new[np.flatnonzero(new)[room:]] = False
        places = len(self.texts) + np.arange(int(new.sum()))
        self.texts += [words[index] for index in at[new]]
        self.hashes = np.insert(self.hashes, place[new], marks[new])
        self.counts = np.insert(self.counts, place[new], counts[new])
        self.places = np.insert(self.places, place[new], places)
        self.waiting = []

    def _frequent(self) -> tuple[tuple[str, int], ...]:
        """The words that occur most, of equally frequent ones the first in order."""
        np = self.np
        if len(self.counts) > FREQUENT:
            least = np.partition(self.counts, -FREQUENT)[-FREQUENT]
            chosen = np.flatnonzero(self.counts >= least)
        else:
            chosen = np.arange(len(self.counts))
        found = [(self.texts[self.places[n]], int(self.counts[n])) for n in chosen]
        return tuple(sorted(found, key=lambda item: (-item[1], item[0]))[:FREQUENT])
