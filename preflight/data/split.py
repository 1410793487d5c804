"""One index with what was found in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from preflight.data.gather import gather
from preflight.data.media import Files, look
from preflight.data.problem import refused
from preflight.data.readers import batches, index, kind
from preflight.data.statistics import Statistics, Wanted
from preflight.data.twins import Twins


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """`name` is train, validation, or index for one that is given alone."""

    name: str
    path: Path
    format: str
    statistics: Statistics
    files: Files | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Sets:
    """All that was asked: the indexes, what the run wants of their samples, and what the second shares with the first.

    `absent` are indexes that a config names and that are not here, by their names.
    """

    splits: tuple[Split, ...]
    wanted: Wanted
    overlap: Twins | None = None
    absent: Mapping[str, str] = field(default_factory=dict)


def split(name: str, path: str, wanted: Wanted, progress: Callable[[int, int], None]) -> Split:
    """All of the index at `path`. Raises ConfigError where there is none, or it cannot be read."""
    found = index(path)
    if found is None:
        there = Path(path).expanduser()
        why = "is a folder without metadata.csv, .jsonl, .json or .parquet" if there.is_dir() else "does not exist"
        if there.is_file():
            why = "is no index, expected a file that ends in .csv, .tsv, .jsonl, .json or .parquet"
        raise refused(Path(path), why)
    statistics = gather(batches(found), wanted, progress=progress)
    return Split(name=name, path=found, format=kind(found), statistics=statistics, files=look(statistics.drawn, found))
