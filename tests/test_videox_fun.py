"""VideoX-Fun's launches: the largest batch that its buckets make, the layers that a word chooses, and changes in its own flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from preflight import document
from preflight.adapters import by_name
from preflight.adapters.reading import Reading
from preflight.finding import ConfigError

TOKENS = "--enable_bucket --random_hw_adapt --training_with_video_token_length"


def read(tmp_path: Path, flags: str, *, model: str = "models/Wan2.1-T2V-1.3B", program: str = "train_lora.py") -> Reading:
    script = tmp_path / "train.sh"
    given = f"--pretrained_model_name_or_path {model} --mixed_precision bf16"
    script.write_text(f"accelerate launch --num_processes 1 scripts/wan2.1/{program} {given} {flags}\n", encoding="utf-8")
    return by_name("videox-fun").read(document.read(str(script)))


@pytest.mark.parametrize(
    ("flags", "size"),
    [
        ("--video_sample_n_frames 50", (512, 512, 49)),
        ("--video_sample_n_frames 81 --video_sample_size 640 --enable_bucket", (640, 640, 81)),
        ("--video_sample_n_frames 1 --video_sample_size 512 --image_sample_size 1024", (1024, 1024, 1)),
        ("--video_sample_n_frames 49 --fix_sample_size 480 832 --enable_bucket", (480, 832, 49)),
        ("--video_sample_n_frames 49 --fix_sample_size 480 832", (512, 512, 49)),
        (f"{TOKENS} --video_sample_n_frames 81 --video_sample_size 640 --image_sample_size 640 --token_sample_size 640",
         (640, 640, 81)),
        (f"{TOKENS} --video_sample_n_frames 81 --video_sample_size 256 --image_sample_size 1024 --token_sample_size 512",
         (1024, 1024, 21)),
    ],
)  # fmt: skip
def test_the_largest_batch_is_judged(tmp_path: Path, flags: str, size: tuple[int, int, int]) -> None:
    data = read(tmp_path, flags).spec["data"]
    assert (data["height"], data["width"], data["frames"]) == size


def test_peft_takes_the_end_of_a_name_and_the_trainers_own_adapters_any_part(tmp_path: Path) -> None:
    asked = "--video_sample_n_frames 17 --target_name q,ffn"
    assert read(tmp_path, f"{asked} --use_peft_lora").spec["train"]["lora"]["targets"] == ["q", "ffn"]
    assert read(tmp_path, asked).spec["train"]["lora"]["targets"] == ["self_attn.q", "cross_attn.q", "ffn.0", "ffn.2"]
    everything = read(tmp_path, "--video_sample_n_frames 17").spec["train"]["lora"]["targets"]
    assert {"head.head", "text_embedding.0", "ffn.2"} < set(everything)
    assert "cross_attn.k_img" not in everything


@pytest.mark.parametrize(
    ("flags", "program", "message"),
    [
        ("--use_peft_lora", "train_lora.py", "needs --target_name"),
        ("--target_name lora", "train_lora.py", "no layer has lora"),
        ("", "train.py", "without --trainable_modules"),
        ("--trainable_modules attn", "train.py", "is not modelled; expected . for all"),
        ("", "train_reward_lora.py", "is not modelled; expected VideoX-Fun's train.py"),
    ],
)
def test_what_is_not_modelled_is_refused(tmp_path: Path, flags: str, program: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, f"--video_sample_n_frames 17 {flags}", program=program)


def test_changes_are_said_in_the_trainers_flags(tmp_path: Path) -> None:
    reading = read(tmp_path, "--video_sample_n_frames 49 --enable_bucket")
    assert reading.spell({"data.frames": 17, "train.batch": 1}) == {"--video_sample_n_frames": 17, "--train_batch_size": 1}
    assert reading.spell({"data.latents": "offloaded", "data.text": "offloaded"}) == {"--low_vram": True}
    assert reading.spell({"data.height": 320, "data.width": 480}) == {"--fix_sample_size": [320, 480]}
    assert reading.spell({"train.optimizer.bits": 8}) == {"--use_8bit_adam": True}
