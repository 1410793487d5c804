"""JSON lines: an object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from preflight.data.batch import ROWS, Batch, batch
from preflight.data.problem import refused
from preflight.data.readers.lines import lines, size
from preflight.data.readers.objects import known, record


def read(path: Path) -> Iterator[Batch]:
    """The objects of the file in pieces. Raises ConfigError for a line that is none, and where none is a sample."""
    with path.open("rb") as file:
        total = size(file)
        rows: list[dict[str, Any]] = []
        first, number = 1, 0
        for number, line in enumerate(lines(file, path), 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                raise refused(path, f"has a line that is not JSON (line {number:,}), expected an object a line") from None
            rows.append(record(path, value, f"line {number:,}"))
            if first + len(rows) == 2:
                known(path, rows[0])
            if len(rows) == ROWS:
                yield batch(rows, first=first, done=file.tell(), total=total)
                first, rows = first + len(rows), []
        if rows:
            yield batch(rows, first=first, done=total, total=total)
        elif first == 1:
            raise refused(path, "is empty, expected an object for each sample")
