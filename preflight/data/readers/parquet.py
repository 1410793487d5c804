"""Parquet, by pyarrow (the `data` extra): only the columns that are known, a batch at a time. Media inside it stay there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from preflight.data.batch import ROWS, Batch
from preflight.data.columns import NAMES, NEEDED, columns
from preflight.data.problem import refused


def read(path: Path) -> Iterator[Batch]:
    """The rows of the file in pieces. Raises ConfigError, also where pyarrow is missing."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        fix = "pip install 'preflight-train[data]'"
        raise refused(path, f"is Parquet, which needs pyarrow; {fix} brings it", severity="note", fix=fix) from None
    try:
        with ParquetFile(path) as file:
            kinds = {field.name: field.type for field in file.schema_arrow}
            found = columns(name for name, kind in kinds.items() if _plain(kind) or _has_path(kind))
            if not any(field in found for field in NEEDED):
                shown = ", ".join(file.schema_arrow.names[:6])
                expected = " or ".join(NAMES[field][0] for field in NEEDED)
                why = f"has no column that names a sample's file or caption (it has {shown[:80]}), expected such as {expected}"
                raise refused(path, why, severity="note")
            total, first = file.metadata.num_rows, 1
            if not total:
                raise refused(path, "is empty, expected a row for each sample")
            wanted = [name if _plain(kinds[name]) else f"{name}.path" for names in found.values() for name in names]
            for piece in file.iter_batches(batch_size=ROWS, columns=wanted, use_threads=False):
                rows = list(zip(*(column.to_pylist() for column in piece.columns), strict=True))
                yield Batch(names=piece.schema.names, rows=rows, first=first, done=first + len(rows) - 1, total=total)
                first += len(rows)
    except ArrowException as problem:
        raise refused(path, f"is not Parquet that can be read: {str(problem).splitlines()[0].rstrip('.')}") from None


def _plain(kind: Any) -> bool:
    """Whether values of this type are a text, a number, or texts: neither bytes nor groups."""
    from pyarrow import types

    if types.is_dictionary(kind) or types.is_list(kind):
        kind = kind.value_type
    return not (types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _has_path(kind: Any) -> bool:
    """Whether it is a group of bytes and their path, as Hugging Face's data sets store media."""
    from pyarrow import types

    return types.is_struct(kind) and "path" in kind.names
