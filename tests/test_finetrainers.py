"""finetrainers: what its authors measured, the JSON files beside its launches, and changes in its own flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from preflight import document, pipeline
from preflight.adapters import by_name, detect
from preflight.adapters.finetrainers_values import targets
from preflight.adapters.reading import Reading
from preflight.finding import ConfigError
from preflight.units import GIB

HERE = Path(__file__).parent
CONFIGS = HERE / "adapters" / "configs" / "finetrainers"
CORPUS = HERE.parents[1] / "shared" / "corpus" / "wan" / "finetrainers"
HUNYUAN = ("--model_name=hunyuan_video", "--pretrained_model_name_or_path=hunyuanvideo-community/HunyuanVideo")
COGVIDEOX = ("--model_name=cogvideox", "--pretrained_model_name_or_path=THUDM/CogVideoX-5b")
MEASURED = ("--video_resolution_buckets=49x512x768", "--validation_prompts=a kite@@@49x512x768", "--use_8bit_bnb=false",
            "--gradient_accumulation_steps=1")  # fmt: skip
FULL, NOT_AHEAD = "--training_type=full-finetune", "--precompute_conditions=false"


def read(name: str, *settings: str) -> Reading:
    config = document.read(str(CONFIGS / name), overrides=settings)
    return by_name("finetrainers").read(config)


@pytest.mark.parametrize(
    ("settings", "phases", "theirs", "off"),
    [
        # docs/training/ltx_video.md of v0.0.1: max_memory_reserved in GiB, "about 18 GB of VRAM without precomputation"
        pytest.param((NOT_AHEAD,), ("load", "encode", "step"), 17.623, 0.03, id="ltx"),
        pytest.param((), ("sample",), 17.262, 0.03, id="ltx-ahead-validation"),
        pytest.param((FULL,), ("step",), 20.357, 0.02, id="ltx-full"),
        # docs/training/hunyuan_video.md; the attention of that day's diffusers had a mask of its own, some GiB more
        pytest.param((*HUNYUAN, NOT_AHEAD), ("load", "encode", "step"), 56.266, 0.08, id="hunyuan"),
        pytest.param(HUNYUAN, ("step",), 42.387, 0.08, id="hunyuan-ahead"),
        pytest.param(HUNYUAN, ("sample",), 46.947, 0.03, id="hunyuan-ahead-validation"),
        # docs/training/cogvideox.md, at 49x480x720
        pytest.param((*COGVIDEOX, FULL, "--video_resolution_buckets=49x480x720"), ("step",), 52.939, 0.02, id="cogvideox-full"),
    ],
)
def test_what_its_authors_measured(settings: tuple[str, ...], phases: tuple[str, ...], theirs: float, off: float) -> None:
    result = pipeline.inspect(str(CONFIGS / "old_flags.sh"), overrides=(*MEASURED, *settings), gpu="h100-80gb", grow=False)
    ours = max(phase.reserved_bytes or 0 for phase in result.memory.phases if phase.name in phases)
    assert ours / GIB == pytest.approx(theirs, rel=off)


@pytest.mark.parametrize(
    ("settings", "count"),
    [((), "117,440,512"), (HUNYUAN, "163,577,856"), (COGVIDEOX, "132,120,576"), ((FULL,), "")],
    ids=["ltx", "hunyuan", "cogvideox", "full"],
)
def test_as_many_parameters_train_as_its_log_says(settings: tuple[str, ...], count: str) -> None:
    result = pipeline.inspect(str(CONFIGS / "old_flags.sh"), overrides=(*MEASURED, *settings), gpu="h100-80gb", grow=False)
    said = [finding.message for finding in result.findings if finding.id == "lora"]
    assert all(count in message for message in said)
    assert bool(said) == bool(count)


def test_a_smaller_shape_is_spelled_in_each_larger_bucket() -> None:
    reading = read("wan_lora.sh")
    spelled = reading.spell({"data.frames": 25, "data.height": 320, "data.width": 576})
    assert spelled == {"dataset.datasets[0].video_resolution_buckets": [[25, 320, 576]]}
    kept = reading.spell({"data.frames": 33})
    assert kept == {"dataset.datasets[0].video_resolution_buckets": [[25, 480, 832], [49, 320, 576], [33, 480, 832]]}
    assert read("old_flags.sh").spell({"data.frames": 49}) == {"--video_resolution_buckets": "25x320x512 49x512x768"}
    assert read("flux_cards.sh").spell({"data.height": 512, "data.width": 512}) == {
        "dataset.datasets[0].image_resolution_buckets": [[512, 512]]
    }


@pytest.mark.parametrize("name", ["wan_lora.sh", "old_flags.sh", "ltx_fp8.sh", "hunyuan_fsdp.sh"])
@pytest.mark.parametrize(
    "change",
    [
        {"data.frames": 17, "data.height": 256, "data.width": 448},
        {"train.batch": 1, "train.accumulation": 8},
        {"train.checkpointing": True},
        {"data.latents": "cached", "data.text": "cached"},
        {"sample.tiling": True},
    ],
    ids="-".join,
)
def test_what_is_spelled_reads_back(name: str, change: dict[str, Any]) -> None:
    before = read(name)
    settings = tuple(f"{key}={_text(value)}" for key, value in before.spell(change).items())
    after = read(name, *settings)
    for path, value in change.items():
        group, key = path.split(".")
        if group in before.spec and (group != "sample" or "sample" in after.spec):
            assert after.spec[group].get(key) == value


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_gpus_are_spelled_for_the_launcher_and_in_degrees() -> None:
    assert read("wan_lora.sh").spell({"parallel.gpus": 4}) == {"hardware.gpus": 4, "--dp_degree": 4}
    assert read("wan_lora.sh").spell({"parallel.strategy": "fsdp"}) == {"--dp_degree": 1, "--dp_shards": 2}
    assert read("hunyuan_fsdp.sh").spell({"parallel.sequence": 2}) == {"--dp_shards": 2, "--cp_degree": 2}
    four = read("wan_lora.sh", "hardware.gpus=4", "--dp_degree=4").spec["parallel"]
    assert (four["gpus"], four["strategy"]) == (4, "ddp")


def test_the_largest_data_set_decides_be_it_of_pictures() -> None:
    data = read("wan_lora.sh", "dataset.datasets[1].image_resolution_buckets=[[5000,5000]]").spec["data"]
    assert (data["frames"], data["height"], data["width"]) == (1, 5000, 5000)


@pytest.mark.parametrize(
    ("settings", "id_"),
    [
        (("--target_modules=blocks.*(to_q",), "invalid-value"),
        (("--target_modules=to_nothing",), "lora-target"),
        (("--dataset_config=elsewhere.json",), "file-not-read"),
        (("--pp_degree=2",), "trainer-refuses"),
        (("--parallel_backend=accelerate", "--dp_degree=1", "--dp_shards=2"), "trainer-refuses"),
        (("--dp_degree=4",), "conflicting-keys"),
        (("--model_name=cogview4", "--pretrained_model_name_or_path=THUDM/CogView4-6B"), "not-modelled"),
        (("--training_type=full-finetune", "--layerwise_upcasting_modules=transformer"), "quantized-training"),
        (("--optimizer=muon",), "invalid-value"),
        (("dataset.datasets[0].video_resolution_buckets=[[49,480]]",), "invalid-value"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(settings: tuple[str, ...], id_: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read("wan_lora.sh", *settings)
    assert id_ in [finding.id for finding in caught.value.findings if finding.severity == "error"]


def test_a_pattern_is_for_whole_names_and_a_list_for_their_ends() -> None:
    assert targets("wan2.1-t2v-1.3b", ["blocks.*attn1.to_q"], listed=False) == ["attn1.to_q"]
    assert targets("wan2.1-t2v-1.3b", ["to_q"], listed=False) == []
    assert targets("wan2.1-t2v-1.3b", ["to_q"], listed=True) == ["attn1.to_q", "attn2.to_q"]
    assert "proj_out" in targets("flux.1-dev", [".*single_transformer_blocks.*proj_out"], listed=False)


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"{CORPUS} is not on this machine")
@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.json")) if CORPUS.is_dir() else (), ids=lambda path: path.stem[-50:])
def test_its_data_files_are_no_training_configs(path: Path) -> None:
    config = document.read(str(path))
    adapter = detect(config)
    assert adapter.name == "finetrainers"
    with pytest.raises(ConfigError) as caught:
        adapter.read(config)
    (finding,) = caught.value.findings
    assert (finding.id, finding.key) == ("not-a-training-config", "data" if "validation" in path.stem else "datasets")


def test_a_sample_is_shared_in_torchs_ring() -> None:
    parallel = read("hunyuan_fsdp.sh", "--dp_shards=2", "--cp_degree=2").spec["parallel"]
    assert (parallel["sequence"], parallel["ring"], parallel["sequence_code"]) == (2, 2, "torch")
