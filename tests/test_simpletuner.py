"""SimpleTuner: what its own files are, how changes are spelled into them, and the examples that it comes with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from preflight import document, pipeline, schema
from preflight.adapters import detect, simpletuner
from preflight.adapters.reading import Reading
from preflight.finding import ConfigError

HERE = Path(__file__).parent
CONFIGS, FILES = HERE / "adapters" / "configs" / "simpletuner", HERE / "adapters" / "files" / "simpletuner"
CORPUS = HERE.parents[1] / "shared" / "corpus" / "wan" / "simpletuner"


def read(name: str, *settings: str) -> Reading:
    return simpletuner.read(document.read(str(CONFIGS / name), overrides=settings))


def refused(name: str, *settings: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(name, *settings)
    return [finding.message for finding in caught.value.findings if finding.severity == "error"]


def test_a_list_of_data_backends_is_no_training_config() -> None:
    with pytest.raises(ConfigError) as caught:
        document.read(str(FILES / "clips.json"))
    (finding,) = caught.value.findings
    assert finding.id == "not-a-training-config"
    assert finding.message == (
        "This is a list of SimpleTuner's data backends, not a training config;"
        " give the config.json whose data_backend_config names it."
    )


def test_a_smaller_shape_is_spelled_in_the_data_sets_that_are_larger() -> None:
    reading = read("wan_clips.json")
    changes = {"data.frames": 25, "data.width": 416, "data.height": 256}
    spelled = reading.spell(changes)
    assert spelled == {"data_backend_config[0].video.num_frames": 25, "data_backend_config[0].resolution": 320}
    after = read("wan_clips.json", *(f"{key}={value}" for key, value in spelled.items())).spec["data"]
    assert after["frames"] == 25
    assert after["width"] * after["height"] <= 416 * 256


def test_the_largest_data_set_decides_and_a_disabled_one_does_not() -> None:
    assert read("wan_clips.json").origins["data.width"] == "data_backend_config[0].resolution"
    alone = "data_backend_config[0].disabled=true"
    data = read("wan_clips.json", alone).spec["data"]
    assert (data["width"], data["height"], data["frames"]) == (512, 512, 1)


def test_a_clips_length_that_stands_nowhere_is_not_spelled() -> None:
    assert read("ltx2_ramtorch.toml").spell({"data.frames": 17, "sample.frames": 17}) == {}
    said = read("ltx2_ramtorch.toml", "video.num_frames=97")
    assert said.spec["data"]["frames"] == 97
    assert said.spell({"data.frames": 17}) == {"video.num_frames": 17}


def test_a_lycoris_file_that_is_not_there_is_taken_to_be_the_example() -> None:
    reading = read("flux_lokr.json", "--lycoris_config=nowhere.json")
    assert reading.spec["train"]["lora"]["factor"] == 8
    assert [finding.severity for finding in reading.findings if finding.id == "file-not-read"] == ["warning"]


def test_lycoris_own_rank_stands_in_another_file() -> None:
    assert read("flux_lokr.json").spell({"train.lora.rank": 8}) == {}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lycoris_config.algo=oft", 'lycoris_config.algo is "oft": of LyCORIS\' adapters lora alone and lokr alone are modelled.'),
        ("lycoris_config.linear_dim=wide", 'lycoris_config.linear_dim is "wide"; expected a whole number from 1 to 65,536.'),
        ("data_backend_config[1].resolution=wide",
         'data_backend_config[1].resolution is "wide"; expected a number above 0 and at most'),
        ("--model_flavour=pro", "--model_flavour is"),
        ("--ramtorch_transformer_percent=200", "--ramtorch_transformer_percent is 200; expected a number from 0 to 100."),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_its_key(setting: str, message: str) -> None:
    found = refused("flux_lokr.json", setting)
    assert any(sentence.startswith(message) for sentence in found), found


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("optimizer=bnb-adamw8bit", ("train", "optimizer", "name"), "bnb-adamw8bit"),
        ("gradient_checkpointing_backend=unsloth", ("offload", "activations"), True),
        ("enable_group_offload=true", ("offload", "parameters"), True),
        ("keep_vae_loaded=true", ("data", "latents"), "online"),
        ("base_model_precision=int8-torchao", ("precision", "quantization"), "int8-torchao"),
        ("validation_resolution=1024", ("sample", "width"), 1024),
        ("train_batch_size=6", ("train", "batch"), 6),
    ],
)
def test_an_option_reaches_the_spec(setting: str, path: tuple[str, ...], value: Any) -> None:
    place: Any = read("wan_clips.json", "musubi_blocks_to_swap=0", setting).spec
    for key in path:
        place = place[key]
    assert place == value


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"{CORPUS} is not on this machine")
@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.json")) if CORPUS.is_dir() else (), ids=lambda path: path.stem[-50:])
def test_an_example_of_its_own_is_read_or_refused_by_its_key(path: Path) -> None:
    result = pipeline.inspect(str(path), gpu="a100-80gb", grow=False)
    errors = [finding for finding in result.findings if finding.severity == "error"]
    if path.stem.rpartition("__")[2].startswith("multidatabackend"):
        assert [finding.id for finding in errors] == ["not-a-training-config"]
        return
    config = document.read(str(path))
    assert detect(config).name == "simpletuner"
    assert not [finding for finding in result.findings if finding.id == "unknown-key"]
    try:
        reading = simpletuner.read(config)
    except ConfigError:
        assert all(finding.key and finding.line for finding in errors)
    else:
        assert schema.check(reading.spec, "spec") == []


def test_a_sample_is_shared_by_exchanging_heads_or_not_at_all() -> None:
    shared = "context_parallel_size=2", "num_processes=2"
    found = read("wan_clips.json", *shared, "context_parallel_comm_strategy=alltoall")
    assert found.spec["parallel"]["sequence_code"] == "diffusers"
    assert "ring" not in found.spec["parallel"]
    assert not [finding for finding in found.findings if finding.severity == "error"]
    (said,) = refused("wan_clips.json", *shared)
    assert said == "allgather is diffusers' ring for any length, which has no backward pass: the first step stops."
    assert read("wan_clips.json").spell({"parallel.sequence": 2}) == {
        "context_parallel_size": 2,
        "context_parallel_comm_strategy": "alltoall",
    }


def test_torchs_ring_shares_a_sample_below_fsdp() -> None:
    found = read("wan_clips.json", "context_parallel_size=2", "num_processes=4", "fsdp_enable=true")
    parallel = found.spec["parallel"]
    assert (parallel["sequence"], parallel["ring"], parallel["sequence_code"]) == (2, 2, "torch")
