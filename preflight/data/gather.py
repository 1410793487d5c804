"""One pass over an index, of whose rows a few bytes each are kept."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from preflight.data.batch import Batch
from preflight.data.media import Draw
from preflight.data.numbers import pearson, spread
from preflight.data.sample import Reader, Samples
from preflight.data.statistics import BUCKETS, STEP, Captions, Categories, Clips, Sizes, Statistics, Wanted
from preflight.data.twins import Marks
from preflight.data.words import Vocabulary

CATEGORIES = 1_000  # a column with more different values names no categories
SIZES = 20_000  # different resolutions that are counted apart


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """Where to stop: at so many rows, or after the batch with which so many bytes (rows of a Parquet file) are read."""

    rows: int
    done: int


def gather(
    batches: Iterable[Batch],
    wanted: Wanted,
    *,
    words: bool = True,
    limit: Limit | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
) -> Statistics:
    """The statistics of an index, up to `limit` where one is given; words and correlations only with `words`.

    Raises ConfigError where the index cannot be read.
    """
    found = _Gathering(wanted, words=words)
    pieces = iter(batches)
    for batch in pieces:
        left = len(batch.rows) if limit is None else limit.rows - found.rows
        found.add(batch if left >= len(batch.rows) else replace(batch, rows=batch.rows[:left]))
        progress(batch.done, batch.total)
        if limit is not None and (left <= len(batch.rows) or batch.done >= limit.done):
            whole = left >= len(batch.rows) and batch.done == batch.total and next(pieces, None) is None
            return found.statistics(whole=whole)
    return found.statistics(whole=True)


class _Gathering:
    def __init__(self, wanted: Wanted, *, words: bool) -> None:
        self.wanted, self.words = wanted, words
        self.rows = 0
        self.reader = Reader()
        self.uneven: tuple[int, int] | None = None
        self.kinds: Counter[str] = Counter()
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.sized, self.other = 0, 0
        self.seconds, self.timed, self.letters = array("d"), array("d"), array("d")
        self.frames, self.short, self.fewest = 0, 0, 0
        self.categories: Counter[str] = Counter()
        self.unnamed, self.many = 0, False
        self.captions, self.cut = array("l"), 0
        self.vocabulary = Vocabulary() if words else None
        self.media, self.pairs = Marks(), Marks()
        self.draw = Draw()

    def add(self, batch: Batch) -> None:
        if batch.uneven:
            count, first = self.uneven or (0, batch.uneven[0])
            self.uneven = (count + len(batch.uneven), first)
        samples = self.reader.samples(batch)
        self.rows += len(batch.rows)
        self.kinds.update(kind or "unknown" for kind in samples.kinds)
        self._size(samples)
        self._time(samples)
        self._category(samples.categories)
        if samples.captions is not None:
            self._caption(samples.captions)
        self._mark(samples)

    def _size(self, samples: Samples) -> None:
        pairs = [(int(w), int(h)) for w, h in zip(samples.widths, samples.heights, strict=True) if w and h]
        self.sized += len(pairs)
        self.other += len(pairs) - pairs.count((self.wanted.width or 0, self.wanted.height or 0))
        if len(self.sizes) < SIZES:
            self.sizes.update(pairs)
        else:
            self.sizes.update(pair for pair in pairs if pair in self.sizes)

    def _time(self, samples: Samples) -> None:
        captions = samples.captions or [""] * len(samples.kinds)
        rows = zip(samples.kinds, samples.durations, samples.frames, samples.rates, captions, strict=True)
        for kind, duration, frames, rate, caption in rows:
            if kind != "video" or (duration is None and frames is None):
                continue
            seconds = duration if duration is not None else frames / rate if frames and rate else None
            if seconds is not None:
                self.seconds.append(seconds)
                if caption and self.words:
                    self.timed.append(seconds)
                    self.letters.append(len(caption))
            count = _frames(seconds, frames, rate, self.wanted.fps)
            if count is not None:
                self.fewest = min(self.fewest, count) if self.frames else count
                self.frames += 1
                self.short += self.wanted.frames is not None and count < self.wanted.frames

    def _category(self, names: Sequence[str | None]) -> None:
        named = [name for name in names if name is not None]
        self.unnamed += len(names) - len(named)
        if not self.many:
            self.categories.update(named)
            self.many = len(self.categories) > CATEGORIES

    def _caption(self, captions: Sequence[str]) -> None:
        lengths = [len(caption) for caption in captions if caption]
        self.captions.extend(lengths)
        if self.vocabulary is not None:
            self.vocabulary.add(captions)
        if (most := self.wanted.tokens) is not None:  # a word and its space are two characters at least
            self.cut += sum(len(caption.split(maxsplit=most)) > most for caption in captions if len(caption) > 2 * most)

    def _mark(self, samples: Samples) -> None:
        captions = samples.captions or [""] * len(samples.media)
        keys = [name or caption or None for name, caption in zip(samples.media, captions, strict=True)]
        self.media.add(keys)
        self.pairs.add((key, caption) if key else None for key, caption in zip(keys, captions, strict=True))
        self.draw.add([name for name in samples.media if name])

    def statistics(self, *, whole: bool) -> Statistics:
        return Statistics(
            rows=self.rows,
            whole=whole,
            kinds={kind: self.kinds[kind] for kind in ("video", "image", "unknown") if self.kinds[kind]},
            sizes=self._sizes(),
            durations=spread(self.seconds),
            buckets=self._buckets(),
            clips=Clips(known=self.frames, short=self.short, fewest=self.fewest) if self.frames and self.wanted.frames else None,
            categories=self._categories(),
            captions=self._captions(),
            correlation=pearson(self.timed, self.letters),
            media=self.media.twins(),
            samples=self.pairs.twins(),
            uneven=self.uneven,
            slips=tuple(self.reader.slips.found.values()),
            marks=self.media,
            drawn=tuple(self.draw.names),
        )

    def _sizes(self) -> Sizes | None:
        if not self.sized:
            return None
        asked = self.wanted.width is not None and self.wanted.height is not None
        counts = sorted(self.sizes.items(), key=lambda item: (-item[1], item[0]))
        return Sizes(known=self.sized, other=self.other if asked else None, counts=tuple(counts))

    def _buckets(self) -> tuple[int, ...]:
        counts = Counter(bisect_right(BUCKETS, seconds) for seconds in self.seconds)
        return tuple(counts[place] for place in range(1, len(BUCKETS) + 1))

    def _categories(self) -> Categories | None:
        if not self.categories or self.many:
            return None
        ranked = sorted(self.categories.items(), key=lambda item: (-item[1], item[0]))
        return Categories(counts=tuple(ranked), unnamed=self.unnamed)

    def _captions(self) -> Captions | None:
        length = spread(self.captions)
        if length is None:
            return None
        return Captions(
            length=length,
            empty=self.rows - length.count,
            cut=self.cut if self.wanted.tokens is not None else None,
            lengths=dict(sorted(Counter(count // STEP for count in self.captions).items())),
            words=self.vocabulary.words() if self.vocabulary is not None else None,
        )


def _frames(seconds: float | None, frames: float | None, rate: float | None, fps: float | None) -> int | None:
    """Frames of a clip: at `fps` where the run says one, else those it has; None where that is not known."""
    if fps is not None and seconds is not None:
        return int(seconds * fps + 1e-6)
    if frames is not None:
        return int(frames)
    return int(seconds * rate + 1e-6) if seconds is not None and rate else None
