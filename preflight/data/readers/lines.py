"""A text file line by line, no longer than a sample's line can be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO

from preflight.data.problem import refused

LONGEST = 2**24  # characters: a sample with all its captions is a few thousand


def lines(file: BinaryIO, path: Path) -> Iterator[str]:
    """The lines of UTF-8 text, with their ends. Raises ConfigError for bytes that no text has and for a line beyond LONGEST."""
    text = TextIOWrapper(file, encoding="utf-8-sig", newline="")
    number = 0
    try:
        while line := text.readline(LONGEST):
            number += 1
            if "\0" in line:
                raise refused(path, f"holds bytes that no text has (line {number:,}), expected an index")
            if len(line) == LONGEST and not line.endswith("\n"):
                raise refused(path, f"has a line of over {LONGEST:,} characters (line {number:,}), expected one sample a line")
            yield line
    finally:
        with suppress(ValueError):  # closed already
            text.detach()


def size(file: BinaryIO) -> int:
    """Bytes of an open file; where it stands stays."""
    here = file.tell()
    end = file.seek(0, 2)
    file.seek(here)
    return end
