"""The buckets of musubi-tuner's data sets (dataset/bucket.py: BucketSelector, dataset/image_video_dataset.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isqrt
from typing import Any, NamedTuple

from preflight.adapters.conversions import flag, size
from preflight.adapters.diffusion_pipe_values import frames
from preflight.adapters.flags import spoken

SIZE, LENGTHS = spoken(size("wh", square=True)), spoken(frames())
STEP = 4  # frames of one latent frame: VideoDataset.vae_frame_stride
RESOLUTION = (960, 544)  # dataset/config_utils.py: BaseDatasetParams
LONGEST = 129  # VideoDatasetParams.max_frames
#: docs/dataset_config.md: the example, for a data set file that is not here.
EXAMPLE_FRAMES = 45


class Bucket(NamedTuple):
    """`width`, `height` and `frames` of a batch of `batch`, from the data set number `number`."""

    width: int
    height: int
    frames: int
    batch: int
    number: int

    @property
    def extent(self) -> int:
        return self.width * self.height * ((self.frames - 1) // STEP + 1) * self.batch


def largest(data: Mapping[str, Any], *, video: bool, multiple: int) -> Bucket:
    """The bucket of the data set `data` that asks most of a step, which is the trainer's documentation's where it is empty."""
    datasets = data.get("datasets")
    items = enumerate(datasets) if isinstance(datasets, list) else ()
    known = {number: item for number, item in items if isinstance(item, Mapping)}
    if not known:
        known = {0: {"video_directory": "", "target_frames": [EXAMPLE_FRAMES]} if video else {"image_directory": ""}}
    general = data.get("general")
    group = general if isinstance(general, Mapping) else {}
    return max(_buckets(known, group, video, multiple), key=lambda bucket: bucket.extent)


def _buckets(datasets: Mapping[int, Mapping[str, Any]], general: Mapping[str, Any], video: bool, multiple: int) -> Iterator[Bucket]:
    for number, own in datasets.items():
        both = {**general, **own}
        width, height = SIZE.read(both.get("resolution", list(RESOLUTION)))
        if flag().read(both.get("enable_bucket", False)):
            width, height = _bucket(width, height, multiple)
        yield Bucket(width, height, _frames(own) if video else 1, int(both.get("batch_size", 1)), number)


def _bucket(width: int, height: int, multiple: int) -> tuple[int, int]:
    """The largest bucket of the area, in the shape that is nearest to the one asked for."""
    area, side = width * height, isqrt(width * height)
    narrow = max(multiple, side // 2 // multiple * multiple)
    pairs = [(w, area // w // multiple * multiple) for w in range(narrow, side + multiple, multiple)]
    known = [pair for w, h in pairs if h for pair in ((w, h), (h, w))]
    return max(known or [(width, height)], key=lambda pair: (pair[0] * pair[1], -abs(pair[0] / pair[1] - width / height)))


def _frames(own: Mapping[str, Any]) -> int:
    """Images are one frame; "full" takes all of a clip up to max_frames."""
    if not {"video_directory", "video_jsonl_file"} & set(own):
        return 1
    full = str(own.get("frame_extraction", "head")) == "full"
    longest = own.get("max_frames", LONGEST) if full else LENGTHS.read(own.get("target_frames", [1]))
    return (int(longest) - 1) // STEP * STEP + 1
