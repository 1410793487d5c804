"""A JSON list of objects, read without ever holding it whole; and JSON lines that call themselves .json."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from preflight.data.batch import ROWS, Batch, batch
from preflight.data.problem import refused
from preflight.data.readers import jsonl
from preflight.data.readers.lines import LONGEST, size
from preflight.data.readers.objects import known, record

CHUNK = 2**18  # bytes read at once
SPACE = re.compile(r"\s*")


def read(path: Path) -> Iterator[Batch]:
    """The objects of the list in pieces. Raises ConfigError for another JSON, and for what is none."""
    opening = _opening(path)
    if not opening.startswith(b"{"):
        yield from _list(path)
    elif _by_line(opening):
        yield from jsonl.read(path)
    elif b'"data_file"' in opening:
        raise refused(path, "is HunyuanDiT's list of Arrow files, which are not looked into", severity="note")
    else:
        raise refused(path, "is one JSON object, expected a list with an object for each sample", severity="note")


def is_list(path: Path) -> bool:
    """Whether the file lists samples; an object may be anything, such as a config."""
    try:
        opening = _opening(path)
    except OSError:
        return False
    return opening.startswith(b"[") or _by_line(opening)


def _opening(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(CHUNK).removeprefix(codecs.BOM_UTF8).lstrip()


def _by_line(opening: bytes) -> bool:
    """Whether each line is an object of its own."""
    first, _, rest = opening.partition(b"\n")
    try:
        return isinstance(json.loads(first), dict) and rest.lstrip().startswith(b"{")
    except ValueError:
        return False


def _list(path: Path) -> Iterator[Batch]:
    with path.open("rb") as file:
        total = size(file)
        rows: list[dict[str, Any]] = []
        first = 1
        for number, value in enumerate(_elements(file, path), 1):
            rows.append(record(path, value, f"sample {number:,}"))
            if number == 1:
                known(path, rows[0])
            if len(rows) == ROWS:
                yield batch(rows, first=first, done=file.tell(), total=total)
                first, rows = first + len(rows), []
        if rows:
            yield batch(rows, first=first, done=total, total=total)
        elif first == 1:
            raise refused(path, "is an empty list, expected an object for each sample")


def _elements(file: BinaryIO, path: Path) -> Iterator[Any]:
    """The elements of the list, one after the other."""
    text = _Text(file)
    if (opens := text.peek()) != "[":
        raise refused(path, "is not JSON: it begins with neither [ nor {" if opens else "is empty, expected a list of objects")
    text.at += 1
    if text.peek() == "]":
        return
    after, number = ",", 0
    while after == ",":
        number += 1
        try:
            yield text.value()
        except (ValueError, RecursionError):
            raise refused(path, f"is not JSON at sample {number:,}, expected a list of objects") from None
        after = text.peek()
        text.at += 1
    if after != "]":
        raise refused(path, f"is not JSON after sample {number:,}, expected a comma or the end of the list")


class _Text:
    """UTF-8 text of which only what is not yet used is kept: `left`, from `at` on."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.left, self.at = file, "", 0
        self.utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self.json = json.JSONDecoder()

    def peek(self) -> str:
        """The next character that is no space, not yet used; none at the end."""
        while True:
            self.at = SPACE.match(self.left, self.at).end()  # type: ignore[union-attr]  # it matches nothing, too
            if self.at < len(self.left) or not self._more():
                return self.left[self.at : self.at + 1]

    def value(self) -> Any:
        """The next value. Raises ValueError where there is none, or one longer than any sample."""
        self.peek()
        while True:
            try:
                value, end = self.json.raw_decode(self.left, self.at)
            except ValueError:
                if len(self.left) - self.at > LONGEST or not self._more():
                    raise
                continue
            if end < len(self.left) or not self._more():  # at the very end of a piece a number may go on
                self.at = end
                return value

    def _more(self) -> bool:
        """Reads on, as much again as is left, so that a long sample is not scanned often; whether there was anything."""
        piece = self.file.read(max(CHUNK, len(self.left) - self.at))
        self.left, self.at = self.left[self.at :] + self.utf8.decode(piece, final=not piece), 0
        return bool(piece)
