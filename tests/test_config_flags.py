"""musubi-tuner's and sd-scripts' flags, their TOML files, and the buckets of their data sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflight import document
from preflight.adapters import by_name, detect, kohya_sizes, musubi_sizes
from preflight.adapters.reading import Reading

CONFIGS = Path(__file__).parent / "adapters" / "configs"
JUDGED = [
    path
    for family in ("musubi", "kohya")
    for path in sorted((CONFIGS / family).iterdir())
    if path.suffix in (".sh", ".toml") and not path.with_suffix(".txt").read_text(encoding="utf-8").startswith(tuple("0123456789-"))
]


def read(path: Path, *settings: str) -> Reading:
    config = document.read(str(path), overrides=settings)
    return detect(config).read(config)


@pytest.mark.parametrize("path", JUDGED, ids=lambda path: f"{path.parent.name}-{path.name}")
@pytest.mark.parametrize(
    "changes",
    [
        {"train.batch": 3},
        {"data.width": 512, "data.height": 384},
        {"offload.blocks": 7},
        {"train.optimizer.bits": 8, "train.optimizer.name": "adamw"},
        {"train.accumulation": 2},
    ],
    ids=str,
)
def test_what_is_spelled_reads_back(path: Path, changes: dict[str, object]) -> None:
    before = read(path)
    fused = "fused_backward_pass" in str([finding.key for finding in before.findings])
    if fused and not {"train.batch", "data.width", "offload.blocks"} & set(changes):
        pytest.skip("fused_backward_pass allows neither")
    spelled = before.spell(changes)
    after = read(path, *(f"{key}={_yaml(value)}" for key, value in spelled.items()))
    for name, value in changes.items():
        assert _at(after, name) == (value if spelled else _at(before, name)), (name, spelled)


def _at(reading: Reading, path: str) -> object:
    place: object = reading.spec
    for part in path.split("."):
        assert isinstance(place, dict)
        place = place.get(part)
    return place


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_a_flag_goes_before_the_file_that_another_names() -> None:
    reading = read(CONFIGS / "musubi" / "two_cards.sh")
    assert _at(reading, "train.lora.rank") == 8
    assert reading.origins["train.lora.rank"] == "--network_dim"
    assert reading.origins["train.lora.alpha"] == "config.network.network_alpha"


def test_a_toml_of_flags_is_its_trainers_and_nobody_elses() -> None:
    for name, text in (
        ("musubi", 'dit = "x"\nnetwork_module = "networks.lora_wan"\nnetwork_dim = 8\ntask = "t2v-14B"\n'),
        ("kohya", 'pretrained_model_name_or_path = "x"\nnetwork_module = "networks.lora"\nnetwork_dim = 8\nresolution = 512\n'),
    ):
        config = document.read("-", text=text)
        assert detect(config) is by_name(name)


SIDES = st.integers(16, 120).map(lambda n: n * 16)


@given(width=SIDES, height=SIDES)
def test_no_bucket_is_larger_than_the_area_that_is_asked_for(width: int, height: int) -> None:
    data = {"general": {"resolution": [width, height], "enable_bucket": True}, "datasets": [{"image_directory": "x"}]}
    bucket = musubi_sizes.largest(data, video=False, multiple=16)
    assert bucket.width * bucket.height <= width * height
    assert bucket.width % 16 == bucket.height % 16 == 0


@given(width=SIDES, height=SIDES)
def test_neither_is_one_of_sd_scripts(width: int, height: int) -> None:
    own = {"resolution": [width, height], "enable_bucket": True, "min_bucket_reso": 256, "max_bucket_reso": 2048}
    bucket = kohya_sizes.largest({"datasets": [own]}, kohya_sizes.Source({}, {}), 512)
    assert bucket.width * bucket.height <= width * height
    assert bucket.width % 64 == bucket.height % 64 == 0
