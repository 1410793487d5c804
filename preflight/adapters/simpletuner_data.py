"""SimpleTuner's data backends: the largest sample that the data sets of a multidatabackend JSON make, and what makes it smaller.

helpers/data_backend/factory.py, helpers/image_manipulation/training_sample.py and helpers/multiaspect/image.py of
github.com/bghira/SimpleTuner (commit bc8e6ab).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from preflight.adapters.conversions import SIDE, show
from preflight.document import Document
from preflight.finding import ConfigError, Finding

BACKENDS = "data_backend_config"
#: The key without dashes, and what a config.env calls it.
SPELLED = (BACKENDS, BACKENDS.upper(), "DATALOADER_CONFIG")
#: data_backend/dataset_types.py: those whose samples a step trains on.
TRAINED = ("image", "video")
#: training_sample.py: _set_resolution, the areas in megapixels that stand for a square of so many pixels, each ± 0.05.
SQUARES = {0.25: 512, 0.5: 768, 1.0: 1024, 2.0: 1536, 4.0: 2048}
TYPES = ("pixel", "area", "pixel_area")


@dataclass(frozen=True, kw_only=True, slots=True)
class Usual:
    """What holds for a data set that does not say: the config's own keys, the family's multiples, and `aspect`, width by height."""

    resolution: float
    resolution_type: str
    alignment: int
    frames: int
    clip: int
    aspect: float
    batch: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """The samples of one data set; `key` is its place in the config, `sized` whether its own words fix their aspect."""

    key: str
    width: int
    height: int
    frames: int
    batch: int
    sized: bool
    kind: str

    @property
    def extent(self) -> int:
        return self.width * self.height * self.frames * self.batch


def named(document: Document) -> str:
    """The config's own key for the data sets' file, which is read in that key's place."""
    own = (str(path[0]) for path, place in document.positions.items() if len(path) == 1 and place.file is None)
    return next((key for key in own if key.lstrip("-").replace("-", "_") in SPELLED), BACKENDS)


def entries(document: Document) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each data set that is trained on, with its place in the config."""
    backends = document.data.get(BACKENDS)
    for index, entry in enumerate(backends if isinstance(backends, list) else ()):
        if not isinstance(entry, Mapping) or entry.get("disabled") or entry.get("disable"):
            continue
        if entry.get("dataset_type", "image") in TRAINED:
            yield f"{BACKENDS}[{index}]", entry


def samples(document: Document, usual: Usual) -> list[Sample]:
    """What each data set makes. Raises ConfigError for values that make no size."""
    return [_sample(document, key, entry, usual) for key, entry in entries(document)]


def single(resolution: float, kind: str, usual: Usual) -> Sample:
    """What the config's own keys make, where no data set is known."""
    width, height = _target(resolution, kind, usual.aspect, usual.alignment)
    return Sample(key="", width=width, height=height, frames=_clip(usual.clip, usual), batch=usual.batch, sized=False, kind=kind)


def _sample(document: Document, key: str, entry: Mapping[str, Any], usual: Usual) -> Sample:
    kind = entry.get("resolution_type") or usual.resolution_type
    if kind not in TYPES:
        raise _refused(document, f"{key}.resolution_type", kind, f"one of {', '.join(TYPES)}")
    resolution = _number(document, f"{key}.resolution", entry.get("resolution"), usual.resolution, whole=kind != "area")
    frames = 1
    if entry.get("dataset_type") == "video":
        video = entry.get("video")
        told = video.get("num_frames") if isinstance(video, Mapping) else None
        frames = _clip(int(_number(document, f"{key}.video.num_frames", told, usual.clip, whole=True)), usual)
    batch = int(_number(document, f"{key}.train_batch_size", entry.get("train_batch_size"), usual.batch, whole=True))
    cropped = bool(entry.get("crop"))
    aspects = _aspects(entry) if cropped else [usual.aspect]
    sizes = [_target(resolution, str(kind), aspect, usual.alignment) for aspect in aspects]
    if max(max(size) for size in sizes) > SIDE:
        raise _refused(document, f"{key}.resolution", entry.get("resolution"), f"sides of at most {SIDE:,} pixels")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return Sample(key=key, width=width, height=height, frames=frames, batch=batch, sized=cropped, kind=str(kind))


def _aspects(entry: Mapping[str, Any]) -> list[float]:
    """calculate_target_size: a square unless the crop's aspect is drawn from buckets."""
    buckets = entry.get("crop_aspect_buckets")
    if entry.get("crop_aspect", "square") not in ("random", "closest") or not isinstance(buckets, list):
        return [1.0]
    told = [bucket.get("aspect") if isinstance(bucket, Mapping) else bucket for bucket in buckets]
    found = [float(aspect) for aspect in told if isinstance(aspect, int | float) and 0 < aspect < 100]
    return found or [1.0]


def _target(resolution: float, kind: str, aspect: float, alignment: int) -> tuple[int, int]:
    """calculate_target_size and the two ways of multiaspect/image.py: width and height of a sample of such an aspect."""
    if kind == "pixel":
        if aspect == 1.0:
            return int(resolution), int(resolution)
        long = resolution * max(aspect, 1 / aspect)
        sides = (_multiple(int(long), alignment), _multiple(int(resolution), alignment))
        return sides if aspect >= 1 else (sides[1], sides[0])
    area = resolution if kind == "area" else resolution * resolution / 1e6
    if aspect == 1.0:
        near = [side for megapixels, side in SQUARES.items() if abs(area - megapixels) < 0.05]
        side = _multiple(math.sqrt(near[0] ** 2 if near else area * 1e6), alignment)
        return side, side
    edge = _multiple(int(math.sqrt(area * 1e6)), alignment)
    return _multiple(edge * math.sqrt(aspect), alignment), _multiple(edge / math.sqrt(aspect), alignment)


def _multiple(value: float, multiple: int) -> int:
    """_round_to_nearest_multiple, which rounds a half to the even multiple."""
    return max(multiple, round(value / multiple) * multiple)


def _clip(frames: int, usual: Usual) -> int:
    """adjust_video_frames: down to a multiple of the family's and one."""
    return max(1, (frames - 1) // usual.frames * usual.frames + 1)


def _number(document: Document, key: str, value: Any, usual: float, *, whole: bool) -> float:
    if value is None or value == "":
        return usual
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not (0 < number <= SIDE) or (whole and number != int(number)):
        expected = f"a whole number from 1 to {SIDE:,}" if whole else f"a number above 0 and at most {SIDE:,}"
        raise _refused(document, key, value, expected)
    return number


def _refused(document: Document, key: str, value: Any, expected: str) -> ConfigError:
    finding: Finding = document.finding("invalid-value", "error", f"{key} is {show(value)}; expected {expected}.", key=key)
    return ConfigError(finding)


def smaller(document: Document, usual: Usual, wanted: tuple[int, int, int]) -> dict[str, Any]:
    """The keys of each data set whose samples are larger than `wanted` (width, height, frames), with values that make them so."""
    width, height, frames = wanted
    edge = math.isqrt(width * height) // usual.alignment * usual.alignment or usual.alignment
    answer: dict[str, Any] = {}
    for key, entry in entries(document):
        now = _sample(document, key, entry, usual)
        if now.width * now.height * now.frames <= width * height * frames:
            continue
        if now.frames > frames:
            answer[f"{key}.video.num_frames"] = frames
        if now.width * now.height > width * height:
            answer[f"{key}.resolution"] = _edge(now.kind, edge, min(width, height), usual)
    return answer


def _edge(kind: str, edge: int, short: int, usual: Usual) -> float:
    """The resolution, as a data set of this kind writes it, whose samples are no larger than a square of `edge`."""
    if kind == "pixel":
        return max(usual.alignment, short // usual.alignment * usual.alignment)
    return round(edge * edge / 1e6, 4) if kind == "area" else edge
