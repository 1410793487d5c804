"""What a plain check sees of the indexes that a run names: their first rows, within a fraction of a second."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from preflight.data.readers import index
from preflight.finding import ConfigError, Finding
from preflight.spec import Spec

if TYPE_CHECKING:  # most runs name no index that is here
    from preflight.data.statistics import Statistics, Wanted

ROWS = 20_000  # that are read of an index
BYTES = 8 * 2**20  # or the rows in these; a tenth of a second or two on a slow machine


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """An index of the run: `key` is the canonical one that names it, `word` what it is called in a sentence.

    `statistics` is None where it cannot be read; `refused` then says why.
    """

    key: str
    word: str
    path: Path
    statistics: Statistics | None = None
    refused: Finding | None = None

    @property
    def cut(self) -> bool:
        """Whether there are further rows, which were not read."""
        return self.statistics is not None and not self.statistics.whole

    def of(self, number: int, noun: str) -> str:
        """As in "20,000 validation samples", "the first" of them where there are more."""
        return f"{'the first ' if self.cut else ''}{number:,} {self.word} {noun}"


def seen(spec: Spec, tokens: int | None) -> tuple[Seen, ...]:
    """The training set and the validation set, as far as they are here and are indexes. `tokens` is the longest caption read."""
    return tuple(_seen(spec, tokens))


def read(spec: Spec, tokens: int | None) -> Iterator[tuple[Seen, Statistics]]:
    """Those of `seen` that can be read, with what was found."""
    for one in seen(spec, tokens):
        if one.statistics is not None:
            yield one, one.statistics


def _seen(spec: Spec, tokens: int | None) -> Iterator[Seen]:
    for name, word in (("train", "training"), ("validation", "validation")):
        path = getattr(spec.paths, name)
        if path is None or (found := index(path)) is None:
            continue
        try:
            stat = found.stat()
            statistics = _statistics(found, (stat.st_mtime_ns, stat.st_size), _wanted(spec, tokens))
        except ConfigError as problem:
            yield Seen(key=f"paths.{name}", word=word, path=found, refused=problem.findings[0])
        except OSError:
            continue  # gone in the meantime
        else:
            yield Seen(key=f"paths.{name}", word=word, path=found, statistics=statistics)


def _wanted(spec: Spec, tokens: int | None) -> Wanted:
    from preflight.data.statistics import Wanted

    data = spec.data
    return Wanted(width=data.width, height=data.height, frames=data.frames, fps=data.fps, tokens=tokens or None)


@lru_cache(maxsize=8)
def _statistics(path: Path, state: tuple[int, int], wanted: Wanted) -> Statistics:  # noqa: ARG001  # a changed file is another
    from preflight.data.gather import Limit, gather
    from preflight.data.readers import batches

    return gather(batches(path), wanted, words=False, limit=Limit(rows=ROWS, done=BYTES))
