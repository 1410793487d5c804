"""The statistics of data sets, written down for a person and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from preflight.data.balance import ratio, share
from preflight.data.split import Sets, Split
from preflight.data.statistics import BUCKETS, STEP, Statistics, Wanted
from preflight.data.twins import Twins
from preflight.units import count

SCHEMA = "preflight.data/1"
SHOWN = 12  # resolutions and categories a person reads
WIDTH = 14


def text(sets: Sets) -> str:
    """A page for each index, and what they share."""
    pages = ["".join(f"{line}\n" for line in _page(split, sets.wanted)) for split in sets.splits]
    pages += [f"{name} · {path} is not here\n" for name, path in sets.absent.items()]
    if sets.overlap is not None:
        pages.append(f"{_overlap(sets.splits, sets.overlap)}\n")
    return "\n".join(pages)


def as_json(sets: Sets) -> str:
    """One document: what the run wants, and each index; null is what the index does not say."""
    document = {
        "schema": SCHEMA,
        "wanted": asdict(sets.wanted),
        "splits": [_json(split) for split in sets.splits],
        "overlap": asdict(sets.overlap) if sets.overlap is not None else None,
        "absent": dict(sets.absent),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


FORMATS: Mapping[str, Callable[[Sets], str]] = {"text": text, "json": as_json}


def _overlap(splits: Sequence[Split], overlap: Twins) -> str:
    if overlap.rows is None:
        return "no validation sample is in the training set"
    whole = splits[1].statistics.rows
    validation, train = overlap.rows
    said = f"{overlap.count:,} of {whole:,} validation samples ({share(overlap.count, whole)}) are in the training set, too"
    return f"{said}: row {validation:,} is its row {train:,}"


def _page(split: Split, wanted: Wanted) -> Iterator[str]:
    found = split.statistics
    yield f"{split.name} · {split.path} · {split.format} · {count(found.rows, 'row')}"
    for name, lines in (
        ("media", _media(found)),
        ("resolution", _resolution(found, wanted)),
        ("duration", _duration(found, wanted)),
        ("categories", _categories(found)),
        ("captions", _captions(found, wanted)),
        ("words", _words(found)),
        ("duplicates", _duplicates(found)),
        ("files", _files(split)),
        ("unusable", _unusable(found)),
    ):
        for number, line in enumerate(lines):
            yield f"  {'' if number else name:<{WIDTH}}{line}".rstrip()


def _media(found: Statistics) -> Iterator[str]:
    said = " · ".join(f"{kind} {number:,} ({share(number, found.rows)})" for kind, number in found.kinds.items())
    most = ratio(number for kind, number in found.kinds.items() if kind != "unknown")
    yield f"{said} · {most:.2f}:1" if most and len(found.kinds) > 1 and "unknown" not in found.kinds else said


def _resolution(found: Statistics, wanted: Wanted) -> Iterator[str]:
    if found.sizes is None:
        yield "not in the index"
        return
    yield from _table([(f"{w}×{h}", number) for (w, h), number in found.sizes.counts], found.rows)
    if found.sizes.other is not None:
        other, size = found.sizes.other, f"{wanted.width}×{wanted.height}"
        yield f"{other:,} ({share(other, found.sizes.known)}) are not of the training size {size}" if other else f"all are {size}"


def _duration(found: Statistics, wanted: Wanted) -> Iterator[str]:
    spread = found.durations
    if spread is not None:
        yield f"mean {spread.mean:,.2f} s · {spread.least:,.2f} to {spread.most:,.2f} s"
        ends = (*BUCKETS[1:], None)
        names = [f"{a}-{b} s" if b is not None else f"{a} s and more" for a, b in zip(BUCKETS, ends, strict=True)]
        yield from _table(list(zip(names, found.buckets, strict=True)), spread.count)
    if found.correlation is not None:
        yield f"with the length of the caption: Pearson {found.correlation:.4f}"
    if found.clips is not None:
        at = f" at {wanted.fps:g} fps" if wanted.fps else ""
        short, known = found.clips.short, found.clips.known
        said = f"{short:,} of {count(known, 'clip')} ({share(short, known)}) have fewer than the {wanted.frames} frames asked{at}"
        yield f"{said}, the shortest {found.clips.fewest}" if short else f"all have the {wanted.frames} frames asked{at}"


def _categories(found: Statistics) -> Iterator[str]:
    if (groups := found.categories) is None:
        return
    yield f"{len(groups.counts)} · largest to smallest {groups.ratio:.2f}:1 · Gini {groups.gini:.4f}"
    yield from _table(list(groups.counts), found.rows)
    if groups.unnamed:
        yield f"{count(groups.unnamed, 'sample')} without"


def _captions(found: Statistics, wanted: Wanted) -> Iterator[str]:
    if (captions := found.captions) is None:
        yield "none"
        return
    length = captions.length
    yield f"mean {length.mean:,.0f} characters · {length.least:,.0f} to {length.most:,.0f}"
    if captions.empty:
        yield f"{captions.empty:,} are empty"
    if captions.cut is not None:
        part = f"{captions.cut:,} ({share(captions.cut, found.rows)})" if captions.cut else "none"
        yield f"{part} of more words than the {wanted.tokens} tokens that are read; a word is a token or more"


def _words(found: Statistics) -> Iterator[str]:
    if found.captions is None or (words := found.captions.words) is None:
        return
    yield f"mean {words.length.mean:,.1f} a caption · {words.length.least:,.0f} to {words.length.most:,.0f}"
    yield f"type-token ratio: mean {words.ratio.mean:.4f} · {words.ratio.least:.4f} to {words.ratio.most:.4f}"
    least = "at least " if words.cut else ""
    yield f"of all captions together: {words.whole:.4f}, {least}{words.distinct:,} different of {words.tokens:,}"
    yield "most frequent: " + ", ".join(f"{word} {number:,}" for word, number in words.frequent)


def _duplicates(found: Statistics) -> Iterator[str]:
    if found.media.rows is None:
        yield "none"
        return
    earlier, later = found.media.rows
    again = f"{count(found.media.count, 'sample')} again (row {later:,} is row {earlier:,})"
    yield f"{again}, {found.samples.count:,} with the same caption"


def _files(split: Split) -> Iterator[str]:
    if (files := split.files) is not None:
        base = "the working directory" if files.base == "." else files.base
        lost = f", such as {files.example}" if files.missing else ""
        yield f"{files.missing:,} of {files.looked:,} that were looked for are not in {base}{lost}"


def _unusable(found: Statistics) -> Iterator[str]:
    if found.uneven is not None:
        number, first = found.uneven
        yield f"{count(number, 'row')} with too few or too many values, the first in row {first:,}"
    for slip in found.slips:
        yield f"{slip.field}: {count(slip.rows, 'row')} without a number above 0, the first in row {slip.row:,}: {slip.value}"


def _table(rows: Sequence[tuple[str, int]], whole: int) -> Iterator[str]:
    shown = list(rows[:SHOWN])
    if rest := rows[SHOWN:]:
        shown.append((f"{len(rest):,} others", sum(number for _, number in rest)))
    if not shown:
        return
    name, number = max(_columns(row[0]) for row in shown), max(len(f"{row[1]:,}") for row in shown)
    for label, there in shown:
        yield f"{label}{' ' * (name - _columns(label))}  {there:>{number},}  {share(there, whole):>8}"


def _columns(label: str) -> int:
    """Columns of a terminal that the label takes: East Asian letters are two wide."""
    from unicodedata import east_asian_width

    return sum(1 + (east_asian_width(letter) in "WF") for letter in label)


def _json(split: Split) -> dict[str, Any]:
    found = split.statistics
    data: dict[str, Any] = {"name": split.name, "path": str(split.path), "format": split.format}
    plain = asdict(found) | {"marks": None, "drawn": None}
    data |= {key: value for key, value in plain.items() if key not in ("marks", "drawn", "buckets", "whole")}
    data["duration_buckets"] = [{"from": a, "count": number} for a, number in zip(BUCKETS, found.buckets, strict=True)]
    if found.sizes is not None:
        data["sizes"]["counts"] = [{"width": w, "height": h, "count": number} for (w, h), number in found.sizes.counts]
    if (groups := found.categories) is not None:
        named = [{"name": name, "count": number} for name, number in groups.counts]
        data["categories"] |= {"counts": named, "gini": groups.gini, "ratio": groups.ratio}
    if found.captions is not None:
        lengths = [{"from": place * STEP, "count": number} for place, number in found.captions.lengths.items()]
        data["captions"]["lengths"] = lengths
        if (words := found.captions.words) is not None:
            data["captions"]["words"] |= {"whole": words.whole, "frequent": [list(pair) for pair in words.frequent]}
    data["files"] = asdict(split.files) if split.files is not None else None
    return data
