"""What the trainers' own authors say a config needs, beside what is said of it here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from preflight import pipeline

CONFIGS = Path(__file__).parent / "adapters" / "configs"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The config at `path` fits `gpu`, by `source`; `settings` make of it what that is about."""

    path: str
    gpu: str
    source: str
    settings: tuple[str, ...] = ()


CLAIMS = (
    Claim(
        path="diffusion-pipe/wan_24gb.toml",
        gpu="rtx4090-24gb",
        source='diffusion-pipe examples/wan_14b_min_vram.toml: "allow you to train Wan 14b t2v on 512x512x81 with 24GB VRAM"',
    ),
    Claim(
        path="diffusion-pipe/qwen_edit.toml",
        gpu="rtx4090-24gb",
        source="diffusion-pipe examples/qwen_image_24gb_vram.toml and docs/supported_models.md: 24 GB at 640 with 8 blocks swapped",
        settings=("dataset.directory=[{path: /data/after}]",),  # single images: "I don't know if you can train" pairs there
    ),
    Claim(
        path="diffusion-pipe/lumina_full.toml",
        gpu="rtx4090-24gb",
        source="diffusion-pipe docs/supported_models.md: Lumina 2 whole on 24 GB, at 512 without gradient_release",
        settings=("micro_batch_size_per_gpu=1", "optimizer.gradient_release=false"),
    ),
    Claim(
        path="ai-toolkit/flux_24gb.yaml",
        gpu="rtx4090-24gb",
        source="ai-toolkit config/examples/train_lora_flux_24gb.yaml: low_vram if the GPU drives your monitors, else without",
    ),
    Claim(
        path="ai-toolkit/wan21_24gb.yaml",
        gpu="rtx4090-24gb",
        source='ai-toolkit config/examples/train_lora_wan21_14b_24gb.yaml: "This config should work on 24GB GPUs"',
    ),
    Claim(
        path="ai-toolkit/wan22_two_experts.yaml",
        gpu="rtx4090-24gb",
        source="ai-toolkit config/examples/train_lora_wan22_14b_24gb.yaml: pictures of 1024 at 24 GB",
        settings=("config.process[0].datasets[0].num_frames=1", "config.process[0].datasets[0].resolution=1024"),
    ),
    Claim(
        path="videotuna/cogvideo_full.yaml",
        gpu="h100-80gb",
        source='VideoTuna docs/finetune_cogvideox.md: "We tested on 4 H800 GPUs. The training requires 68GB GPU memory"',
    ),
    Claim(
        path="videotuna/cogvideo_full.yaml",
        gpu="h100-80gb",
        source="the same, with as many frames as the authors' video_length asks for",
        settings=("data.params.train.params.num_frames=49",),
    ),
)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.path}-{claim.gpu}")
def test_what_its_author_says_fits_does(claim: Claim) -> None:
    result = pipeline.inspect(str(CONFIGS / claim.path), overrides=claim.settings, gpu=claim.gpu)
    assert result.verdict in ("fits", "tight"), [finding.message for finding in result.findings if finding.severity == "error"]
