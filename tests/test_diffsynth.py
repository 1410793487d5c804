"""DiffSynth-Studio's launches: what names of files say, what the launcher decides, and Wan in the trainer's own writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from preflight import catalog, document
from preflight.adapters import by_name
from preflight.adapters.diffsynth_models import entry, network
from preflight.adapters.reading import Reading
from preflight.finding import ConfigError
from preflight.networks import wan, wan_diffsynth, wan_videox
from preflight.pipeline import inspect_all
from preflight.tape.module import Checkpointing

T2V = "Wan-AI/Wan2.1-T2V-1.3B"
MODELS = f"{T2V}:diffusion_pytorch_model*.safetensors,{T2V}:models_t5_umt5-xxl-enc-bf16.pth,{T2V}:Wan2.1_VAE.pth"
NETWORK = MODELS.split(",", maxsplit=1)[0]


def read(tmp_path: Path, flags: str, *, launcher: str = "", models: str = MODELS) -> Reading:
    script = tmp_path / "train.sh"
    program = "examples/wanvideo/model_training/train.py --dataset_base_path data"
    script.write_text(f"accelerate launch {launcher} {program} --model_id_with_origin_paths '{models}' {flags}\n", encoding="utf-8")
    return by_name("diffsynth").read(document.read(str(script)))


@pytest.mark.parametrize(
    ("text", "role", "name"),
    [
        (f"{T2V}:diffusion_pytorch_model*.safetensors", "network", "wan2.1-t2v-1.3b"),
        ("/a/Wan2.2-I2V-A14B/low_noise_model/diffusion_pytorch_model-00001-of-00006.safetensors", "network", "wan2.2-i2v-a14b"),
        ("/weights/wan2.1_t2v_14B_bf16.safetensors", "network", "wan2.1-t2v-14b"),
        ("PAI/Wan2.2-Fun-A14B-InP:high_noise_model/diffusion_pytorch_model*.safetensors", "network", "PAI/Wan2.2-Fun-A14B-InP"),
        ("/weights/student.safetensors", "network", None),
        ("Wan-AI/Wan2.2-TI2V-5B:Wan2.2_VAE.pth", "vae", None),
        ("black-forest-labs/FLUX.1-dev:ae.safetensors", "vae", None),
        ("Qwen/Qwen-Image:vae/diffusion_pytorch_model.safetensors", "vae", None),
        ("google/gemma-3-12b-it-qat-q4_0-unquantized:model-*.safetensors", "text", None),
        ("/a/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth", "image", None),
    ],
)
def test_a_file_says_what_is_in_it(text: str, role: str, name: str | None) -> None:
    found = entry(text)
    assert found.role == role
    assert role != "network" or network(found) == name


def test_the_first_of_two_stages_is_left_aside_where_the_second_stands_beside_it(tmp_path: Path) -> None:
    train = f"accelerate launch train.py --dataset_base_path data --model_id_with_origin_paths '{MODELS}' --lora_base_model dit"
    first, second = f"{train} --task sft:data_process\n", f"{train} --task sft:train --height 480 --width 832\n"
    script = tmp_path / "both.sh"
    script.write_text(first + second, encoding="utf-8")
    (result,) = inspect_all(str(script), gpu="a100-80gb")
    assert result.verdict == "fits"
    (aside,) = (finding for finding in result.findings if finding.id == "not-judged")
    assert (aside.severity, aside.line) == ("note", 1)
    assert aside.message.endswith("which is started as well, prepares a training and trains nothing itself, so it is not judged.")
    script.write_text(first, encoding="utf-8")
    (alone,) = inspect_all(str(script), gpu="a100-80gb")
    assert (alone.verdict, alone.findings[0].id) == ("cannot-judge", "not-a-training-config")


@pytest.mark.parametrize(
    "name", ["wan2.1-t2v-1.3b", "wan2.1-t2v-14b", "wan2.2-ti2v-5b", "wan2.1-i2v-14b", "wan2.1-fun-14b-control"]
)
def test_wan_has_the_same_parameters_in_every_writing(name: str) -> None:
    dims: dict[str, Any] = {"stride": (4, 8, 8), **catalog.network(name).dims}
    counts = [
        sum(p.numel * p.copies for _, p in family(dims, Checkpointing()).parameters())
        for family in (wan_diffsynth.WanModel, wan_videox.WanTransformer3DModel, wan.Wan)
    ]
    assert counts[0] == counts[1] == counts[2] == catalog.network(name).parameters


@pytest.mark.parametrize(
    ("launcher", "precision", "strategy"),
    [
        ("--num_processes 1", {"autocast": None}, "none"),
        ("--num_processes 1 --mixed_precision bf16", {"autocast": "bf16", "attention": "bf16"}, "none"),
        ("--num_processes 4 --mixed_precision bf16", {"autocast": "bf16", "attention": "bf16"}, "ddp"),
        ("--num_processes 4 --use_deepspeed --zero_stage 3 --mixed_precision bf16", {"autocast": None, "master": "fp32"}, "zero3"),
    ],
)
def test_the_launcher_decides_the_precision(tmp_path: Path, launcher: str, precision: dict[str, Any], strategy: str) -> None:
    spec = read(tmp_path, "--trainable_models dit --height 480 --width 832", launcher=launcher).spec
    assert spec["precision"] == {"weights": "bf16", "text_encoder": "bf16", "vae": "bf16", **precision}
    assert spec["parallel"]["strategy"] == strategy


def test_deepspeeds_own_checkpointing_goes_before_the_trainers(tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text(
        '{"zero_optimization": {"stage": 2}, "activation_checkpointing": {"cpu_checkpointing": false}}', encoding="utf-8"
    )
    launcher = f"--num_processes 2 --use_deepspeed --deepspeed_config_file {tmp_path}/ds.json --mixed_precision bf16"
    reading = read(tmp_path, "--trainable_models dit --use_gradient_checkpointing_offload", launcher=launcher)
    assert reading.spec["train"]["use_reentrant"] is True
    assert reading.spec["offload"]["activations"] is False
    assert "offload-ignored" in {finding.id for finding in reading.findings}


@pytest.mark.parametrize(
    ("models", "sent"),
    [
        (MODELS, "saved"),
        ("black-forest-labs/FLUX.1-dev:flux1-dev.safetensors", "saved"),
        ("Qwen/Qwen-Image:transformer/diffusion_pytorch_model*.safetensors", False),
        ("Tongyi-MAI/Z-Image:transformer/*.safetensors", False),
    ],
)
def test_only_plain_arguments_of_blocks_leave_for_the_host(tmp_path: Path, models: str, sent: object) -> None:
    flags = "--use_gradient_checkpointing_offload --lora_base_model dit --lora_target_modules to_q,to_k"
    reading = read(tmp_path, flags, models=models)
    assert reading.spec["offload"]["activations"] == sent
    assert ("offload-ignored" in {finding.id for finding in reading.findings}) is (sent is False)


def test_layers_that_are_listed_block_by_block_are_counted_in_every_block(tmp_path: Path) -> None:
    targets = ",".join(f"blocks.{n}.self_attn.{name}" for n in range(3) for name in "qk")
    reading = read(tmp_path, f"--lora_base_model dit --lora_target_modules {targets}")
    assert reading.spec["train"]["lora"]["targets"] == ["self_attn.q", "self_attn.k"]
    assert read(tmp_path, "--lora_base_model dit --lora_target_modules ''").spec["train"]["lora"]["targets"][-1] == "ffn.2"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "neither --lora_base_model nor --trainable_models"),
        ("--trainable_models dit,vae", "training dit, vae is not modelled"),
        ("--trainable_models dit --lora_base_model dit", "beside LoRA on dit"),
        ("--lora_base_model dit --task direct_distill", "direct_distill is not modelled"),
        ("--lora_base_model dit --lora_target_modules '.*attn.*'", "the pattern"),
        (f"--lora_base_model dit --offload_models '{NETWORK}'", "named in --offload_models"),
        (f"--trainable_models dit --fp8_models '{NETWORK}'", "cannot be trained"),
        ("--lora_base_model dit --quant_options a:b", "bitsandbytes_nf4"),
    ],
)
def test_what_is_not_modelled_is_refused_by_its_flag(tmp_path: Path, flags: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, flags)


def test_changes_are_said_in_the_trainers_flags(tmp_path: Path) -> None:
    reading = read(tmp_path, "--lora_base_model dit --max_pixels 230400")
    assert reading.spec["data"]["height"] * reading.spec["data"]["width"] <= 230400
    assert reading.spell({"data.height": 320}) == {"--height": 320, "--width": 480}
    assert reading.spell({"train.accumulation": 2, "data.frames": 17}) == {
        "--gradient_accumulation_steps": 2,
        "--num_frames": 17,
    }
    assert reading.spell({"offload.optimizer": True, "data.text": "cached", "train.batch": 2}) == {}
