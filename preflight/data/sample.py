"""The columns of a batch as values of samples, and what in them cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from preflight.data.batch import Batch
from preflight.data.columns import columns

Kind = Literal["video", "image"]
KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("mp4", "mov", "avi", "mkv", "webm", "m4v", "mpg", "mpeg", "ts", "wmv", "flv", "gif"), "video"),
    **dict.fromkeys(("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "jp2", "heic", "avif"), "image"),
}
WORDS: Mapping[str, Kind] = {"video": "video", "vid": "video", "clip": "video", "image": "image", "img": "image", "photo": "image"}
UNKNOWN = ("", "nan", "none", "null", "n/a", "-")  # what pandas and databases write where there is no value
BAD = -1.0  # stands for a value that cannot be used, until it is counted
LARGEST = 2**31  # of a side, of frames, of seconds: what is beyond is a slip of whoever wrote it
SMALLEST = 1e-6  # likewise
KEPT = 100_000  # different values whose reading is remembered


@dataclass(frozen=True, kw_only=True, slots=True)
class Samples:
    """Columns of one length. Sizes in pixels, durations in seconds; None where the index does not say, no caption is empty.

    `captions` is None where the index has no such column.
    """

    media: Sequence[str | None]
    kinds: Sequence[Kind | None]
    captions: Sequence[str] | None
    categories: Sequence[str | None]
    widths: Sequence[float | None]
    heights: Sequence[float | None]
    durations: Sequence[float | None]
    frames: Sequence[float | None]
    rates: Sequence[float | None]


@dataclass(slots=True)
class Slip:
    """Values of one column that cannot be used: how many, and the first of them with its row, counted from 1."""

    field: str
    rows: int
    row: int
    value: str


@dataclass(slots=True)
class Slips:
    """The slips of an index, by column."""

    found: dict[str, Slip] = field(default_factory=dict)

    def add(self, name: str, row: int, value: object) -> None:
        if name in self.found:
            self.found[name].rows += 1
        else:
            shown = repr(value)
            self.found[name] = Slip(field=name, rows=1, row=row, value=shown if len(shown) <= 40 else shown[:39] + "…")


class Reader:
    """Batches to samples. What it remembers of values makes it fast; what cannot be used is None and counted in `slips`."""

    def __init__(self) -> None:
        self.slips = Slips()
        self.whole: dict[Any, float | None] = _Memo(_whole)
        self.real: dict[Any, float | None] = _Memo(_real)
        self.said: dict[Any, Kind | None] = _Memo(_kind)

    def samples(self, batch: Batch) -> Samples:
        raw = {name: _column(batch, spelt) for name, spelt in columns(batch.names).items()}
        nothing: list[Any] = [None] * len(batch.rows)
        media = [_text(value) for value in raw["media"]] if "media" in raw else nothing
        kinds = self._kinds(raw.get("kind"), media)
        widths, heights = (self._numbers(name, raw.get(name), self.whole, batch.first) or nothing for name in ("width", "height"))
        if "resolution" in raw:
            self._sizes(raw["resolution"], batch.first, widths := [*widths], heights := [*heights])
        timed = ("duration", "frames", "fps")
        durations, frames, rates = (self._numbers(name, raw.get(name), self.real, batch.first, kinds) or nothing for name in timed)
        if None in kinds:
            kinds = [
                kind or ("video" if seconds or (count or 0) > 1 else None)
                for kind, seconds, count in zip(kinds, durations, frames, strict=True)
            ]
        return Samples(
            media=media,
            kinds=kinds,
            captions=[_text(value) or "" for value in raw["caption"]] if "caption" in raw else None,
            categories=[_text(value) for value in raw["category"]] if "category" in raw else nothing,
            widths=widths,
            heights=heights,
            durations=durations,
            frames=frames,
            rates=rates,
        )

    def _kinds(self, said: list[Any] | None, media: Sequence[str | None]) -> list[Kind | None]:
        by_name = [KINDS.get(name[name.rfind(".") + 1 :].lower()) if name else None for name in media]
        if said is None:
            return by_name
        return [_remembered(self.said, value) or kind for value, kind in zip(said, by_name, strict=True)]

    def _numbers(
        self,
        name: str,
        values: list[Any] | None,
        memo: dict[Any, float | None],
        first: int,
        kinds: Sequence[Kind | None] | None = None,
    ) -> list[float | None] | None:
        """The values as numbers above 0; with `kinds` an image's that is none is no slip, since it has no duration."""
        if values is None:
            return None
        try:
            read = [memo[value] for value in values]
        except TypeError:  # a list or an object among them
            read = [_remembered(memo, value) for value in values]
        if BAD in read:
            for place, number in enumerate(read):
                if number == BAD:
                    read[place] = None
                    if kinds is None or kinds[place] != "image":
                        self.slips.add(name, first + place, values[place])
        return read

    def _sizes(self, said: list[Any], first: int, widths: list[float | None], heights: list[float | None]) -> None:
        """Fills in what values such as 1280x720 say, where there is neither width nor height; another form says nothing."""
        for place, value in enumerate(said):
            parts = str(value).lower().replace("*", "x").replace("×", "x").split("x")
            if len(parts) == 2 and widths[place] is None and heights[place] is None:
                widths[place], heights[place] = (self._side(part, first + place) for part in parts)

    def _side(self, part: str, row: int) -> float | None:
        number = self.whole[part]
        if number == BAD:
            self.slips.add("resolution", row, part)
            return None
        return number


class _Memo(dict[Any, Any]):
    """What `read` makes of a value, remembered."""

    def __init__(self, read: Callable[[Any], Any]) -> None:
        super().__init__()
        self.read = read

    def __missing__(self, value: Any) -> Any:
        found = self.read(value)
        if len(self) < KEPT:
            self[value] = found
        return found


def _remembered(memo: dict[Any, Any], value: Any) -> Any:
    return memo[value] if not isinstance(value, list | dict) else memo[str(value)]


def _column(batch: Batch, spelt: Sequence[str]) -> list[Any]:
    """The first value that is not empty of the columns with these names, for each row."""
    at = [list(batch.names).index(name) for name in spelt]
    first, *others = at
    values = [row[first] for row in batch.rows]
    for place in others:
        values = [row[place] if value is None or value == "" else value for value, row in zip(values, batch.rows, strict=True)]
    return values


def _text(value: Any) -> str | None:
    """A text, the first of several, or the path of a group that has one; None where it is none of these, or empty."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, list) and value:
        return _text(value[0])
    if isinstance(value, dict):
        return _text(value.get("path"))
    return str(value) if isinstance(value, int) else None


def _kind(said: Any) -> Kind | None:
    return WORDS.get(said.strip().lower().split("/")[0].rstrip("s")) if isinstance(said, str) else None


def _whole(value: Any) -> float | None:
    number = _real(value)
    return number if number is None or number == int(number) else BAD


def _real(value: Any) -> float | None:
    """`value` as a number between SMALLEST and LARGEST, BAD where it is none, None where it says that it is unknown."""
    if value is None or value == "":
        return None
    try:
        number = _clock(value) if isinstance(value, str) and ":" in value else float(value)
    except (TypeError, ValueError, OverflowError):
        return None if isinstance(value, str) and value.strip().lower() in UNKNOWN else BAD
    return number if SMALLEST < number < LARGEST else BAD


def _clock(value: str) -> float:
    """Seconds of 00:23.5 or 01:02:03."""
    seconds = 0.0
    for part in value.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds
