"""CSV and TSV, with a header. Semicolons and tabs are seen from the header, as spreadsheets write them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from preflight.data.batch import ROWS, Batch
from preflight.data.columns import NAMES, NEEDED, columns
from preflight.data.problem import refused
from preflight.data.readers.lines import lines, size

SEPARATORS = ",\t;|"


def read(path: Path) -> Iterator[Batch]:
    """The rows of the file in pieces. Raises ConfigError."""
    with path.open("rb") as file:
        total = size(file)
        text = lines(file, path)
        header = next(text, None)
        if header is None or not header.strip():
            raise refused(path, "is empty, expected a header and a row for each sample")
        table = csv.reader(chain((header,), text), delimiter=max(SEPARATORS, key=header.count))
        try:
            names = [name.strip() for name in next(table)]
            _known(path, names)
            first = 1
            for rows, uneven in _pieces(table, len(names)):
                odd = tuple(first + number for number in uneven)
                yield Batch(names=names, rows=rows, first=first, done=file.tell(), total=total, uneven=odd)
                first += len(rows)
        except csv.Error as problem:
            raise refused(path, f"is not CSV near line {table.line_num:,}: {problem}") from None


def _known(path: Path, names: list[str]) -> None:
    found = columns(names)
    if not any(field in found for field in NEEDED):
        shown = ", ".join(names[:6])
        expected = " or ".join(NAMES[field][0] for field in NEEDED)
        why = f"has no column that names a sample's file or caption (its header is {shown[:80]}), expected such as {expected}"
        raise refused(path, why, severity="note")


def _pieces(table: Iterator[list[str]], width: int) -> Iterator[tuple[list[list[str]], list[int]]]:
    rows: list[list[str]] = []
    uneven: list[int] = []
    for values in table:
        if not values:
            continue  # an empty line
        if len(values) != width:
            uneven.append(len(rows))
            values = [*values, *[""] * (width - len(values))]  # noqa: PLW2901  # what is left out is empty
        rows.append(values)
        if len(rows) == ROWS:
            yield rows, uneven
            rows, uneven = [], []
    if rows:
        yield rows, uneven
