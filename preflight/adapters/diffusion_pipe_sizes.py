"""The buckets that diffusion-pipe's data set makes (utils/dataset.py: DirectoryDataset, ARBucketDataset, SizeBucketDataset)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from preflight.adapters.diffusion_pipe_values import Kind, side_of


class Bucket(NamedTuple):
    """Width, height and frames of a batch, in latents of `step` frames. `image` says that it takes the batch for images."""

    width: int
    height: int
    frames: int
    batch: int
    image: bool
    step: int

    @property
    def extent(self) -> int:
        return self.width * self.height * ((self.frames - 1) // self.step + 1) * self.batch


class Batches(NamedTuple):
    """What `micro_batch_size_per_gpu` and `image_micro_batch_size_per_gpu` say."""

    videos: Any
    images: Any

    def of(self, width: int, height: int, *, image: bool) -> int:
        """ConcatenatedBatchedDataset.post_init: the batch of the side that is nearest, the first of equals."""
        said = self.images if image else self.videos
        if not isinstance(said, list):
            return int(said)
        side = (width * height) ** 0.5
        return int(min(said, key=lambda pair: abs(pair[0] - side))[1])


def rounded(pixels: float, multiple: int) -> int:
    """utils/common.py: round_to_nearest_multiple."""
    return max(multiple, int(round(pixels / multiple) * multiple))


def largest(data: Mapping[str, Any], batches: Batches, kind: Kind) -> Bucket:
    """The bucket of the data set `data` that asks most of a step."""
    sizes = _buckets(data, kind)
    found = [Bucket(w, h, f, batches.of(w, h, image=f == 1), f == 1, kind.step) for w, h, f in sizes]
    return max(found, key=lambda bucket: (bucket.extent, -abs(bucket.width - bucket.height)))


def side_within(area: int, data: Mapping[str, Any], multiple: int) -> int:
    """The largest of `resolutions` none of whose buckets is larger than `area` pixels."""
    ratios = {ratio for directory in _directories(data) for ratio in _ratios(data, directory)}
    side = rounded(area**0.5, multiple)
    while side > multiple and max(w * h for w, h in _shaped(side, ratios, multiple)) > area:
        side -= multiple
    return side


def _buckets(data: Mapping[str, Any], kind: Kind) -> Iterator[tuple[int, int, int]]:
    for directory in _directories(data):
        if said := _pick(data, directory, "size_buckets", None):
            for width, height, frames in said:
                yield (
                    rounded(width, kind.multiple),
                    rounded(height, kind.multiple),
                    _aligned(frames, kind.step) if kind.video else 1,
                )
            continue
        lengths = {1, *_pick(data, directory, "frame_buckets", [1])} if kind.video else {1}
        for resolution in _pick(data, directory, "resolutions", []):
            for width, height in _shaped(side_of(resolution), _ratios(data, directory), kind.multiple):
                yield from ((width, height, _aligned(frames, kind.step)) for frames in lengths)


def _directories(data: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    said = data.get("directory")
    return [item for item in said if isinstance(item, Mapping)] or [{}] if isinstance(said, list) else [{}]


def _pick(data: Mapping[str, Any], directory: Mapping[str, Any], key: str, default: Any) -> Any:
    """A directory's own setting goes before that of all."""
    return next((group[key] for group in (directory, data) if group.get(key) is not None), default)


def _ratios(data: Mapping[str, Any], directory: Mapping[str, Any]) -> list[float]:
    """Width by height of the buckets, to three digits."""
    if not _pick(data, directory, "enable_ar_bucket", False):
        return [1.0]
    if said := _pick(data, directory, "ar_buckets", None):
        ratios = [item[0] / item[1] if isinstance(item, list) else item for item in said]
    else:
        low, high = (_pick(data, directory, key, usual) for key, usual in (("min_ar", 0.5), ("max_ar", 2.0)))
        steps = int(_pick(data, directory, "num_ar_buckets", 7))
        ratios = [low * (high / low) ** (step / max(1, steps - 1)) for step in range(steps)]
    return sorted({round(ratio, 3) for ratio in ratios})


def _shaped(side: float, ratios: Any, multiple: int) -> Iterator[tuple[int, int]]:
    """ARBucketDataset.cache_latents: each ratio at the area of the square."""
    for ratio in ratios:
        width = (side**2 * ratio) ** 0.5
        yield rounded(width, multiple), rounded(side**2 / width, multiple)


def _aligned(frames: int, step: int) -> int:
    """models/base.py: align_frames."""
    return (frames - 1) // step * step + 1
