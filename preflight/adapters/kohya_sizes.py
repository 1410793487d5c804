"""The buckets of sd-scripts' data sets (library/config_util.py, library/model_util.py: make_bucket_resolutions)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isqrt
from typing import Any, NamedTuple

from preflight.adapters.conversions import flag, size
from preflight.adapters.flags import spoken
from preflight.finding import ConfigError, Finding

SIZE = spoken(size("wh", square=True))
#: library/config_util.py: DreamBoothDatasetParams
DEFAULTS: Mapping[str, Any] = {
    "batch_size": 1,
    "enable_bucket": False,
    "min_bucket_reso": 256,
    "max_bucket_reso": 1024,
    "bucket_reso_steps": 64,
    "bucket_no_upscale": False,
}


class Bucket(NamedTuple):
    """`width` and `height` of a batch of `batch`; `places` says what each setting was read from, a key or "" for the default."""

    width: int
    height: int
    batch: int
    places: Mapping[str, str]

    @property
    def extent(self) -> int:
        return self.width * self.height * self.batch


class Source(NamedTuple):
    """Settings under their names in the data set's TOML, and what the user calls each."""

    values: Mapping[str, Any]
    keys: Mapping[str, str]


def largest(data: Any, flags: Source, side: int) -> Bucket:
    """The bucket that asks most of a step; `side` holds where no resolution is said. Raises ConfigError for one that stops it."""
    group = data if isinstance(data, Mapping) else {}
    return max(_buckets(group, flags, side), key=lambda bucket: bucket.extent)


def _buckets(group: Mapping[str, Any], flags: Source, side: int) -> Iterator[Bucket]:
    datasets, general = group.get("datasets"), group.get("general")
    listed = enumerate(datasets) if isinstance(datasets, list) else ()
    items = {number: item for number, item in listed if isinstance(item, Mapping)}
    shared = general if isinstance(general, Mapping) else {}
    for number, own in (items or {0: {}}).items():
        known = dict(DEFAULTS)
        places: dict[str, str] = {}
        for source in (
            flags,
            Source(shared, {key: f"dataset.general.{key}" for key in shared}),
            Source(own, {key: f"dataset.datasets[{number}].{key}" for key in own}),
        ):
            known |= source.values
            places |= source.keys
        width, height = SIZE.read(known.get("resolution", side))
        if flag().read(known["enable_bucket"]):
            width, height = _bucket(width, height, known, places)
        yield Bucket(width, height, int(known["batch_size"]), places)


def _bucket(width: int, height: int, known: Mapping[str, Any], places: Mapping[str, str]) -> tuple[int, int]:
    step = int(known["bucket_reso_steps"])
    low = int(known["min_bucket_reso"]) // step * step
    high = -(-int(known["max_bucket_reso"]) // step) * step
    for key, wrong in (("min_bucket_reso", min(width, height) < low), ("max_bucket_reso", max(width, height) > high)):
        if wrong:
            what = "more than the smaller" if key.startswith("min") else "less than the larger"
            message = f"{key} is {known[key]}, {what} side of the resolution {width}x{height}, and sd-scripts stops."
            raise ConfigError(
                Finding(id="bucket-range", severity="error", message=message, key=places.get(key, places.get("resolution")))
            )
    area, square = width * height, isqrt(width * height) // step * step
    pairs = {(square, square)}
    for one in range(max(low, step), high + 1, step):
        other = min(high, area // one // step * step)
        if other >= low:
            pairs |= {(one, other), (other, one)}
    return max((pair for pair in pairs if pair[0] and pair[1]), key=lambda p: (p[0] * p[1], -abs(p[0] / p[1] - width / height)))
