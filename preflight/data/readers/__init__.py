"""One format of index a file. All give batches of rows, and raise ConfigError with one sentence where an index cannot be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from preflight.data.problem import refused

if TYPE_CHECKING:
    from preflight.data.batch import Batch

#: The ending of a file, and the module here that reads it.
ENDINGS: Mapping[str, str] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
}
#: What a folder of samples calls its index, as Hugging Face's folders and DiffSynth-Studio do.
IN_A_FOLDER = tuple(f"metadata{ending}" for ending in (".csv", ".jsonl", ".parquet", ".json"))


def index(path: str) -> Path | None:
    """The index at `path`, or in the folder there; None where there is none, or of no known ending."""
    try:
        found = Path(path).expanduser()
        if found.is_dir():
            return next((inside for name in IN_A_FOLDER if (inside := found / name).is_file()), None)
        return found if found.suffix.lower() in ENDINGS and found.is_file() else None
    except (OSError, ValueError, RuntimeError):  # a name no file can have, a home nobody has
        return None


def kind(path: Path) -> str:
    """The format's name."""
    return ENDINGS[path.suffix.lower()]


def batches(path: Path) -> Iterator[Batch]:
    """The rows of the index. Raises ConfigError, also while it is read: malformed, binary, or a line longer than any sample's."""
    try:
        yield from import_module(f"preflight.data.readers.{kind(path)}").read(path)
    except UnicodeDecodeError as problem:
        raise refused(path, f"is not UTF-8 text (byte {problem.start + 1:,} of what was being read), expected an index") from None
    except (OSError, MemoryError) as problem:
        raise refused(path, f"cannot be read: {getattr(problem, 'strerror', None) or type(problem).__name__}") from None
