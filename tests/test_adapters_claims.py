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
        path="finetrainers/old_flags.sh",
        gpu="rtx4090-24gb",
        source='finetrainers v0.0.1 docs/training/ltx_video.md: "about 17.5 GB of VRAM with precomputation", validation and all',
        settings=("--video_resolution_buckets=49x512x768", "--use_8bit_bnb=false"),
    ),
    Claim(
        path="finetrainers/old_flags.sh",
        gpu="a100-40gb",
        source="finetrainers v0.0.1 README.md: HunyuanVideo in 32 GB for training alone, in fp8 and with precomputation",
        settings=(
            "--model_name=hunyuan_video",
            "--pretrained_model_name_or_path=hunyuanvideo-community/HunyuanVideo",
            "--video_resolution_buckets=49x512x768",
            "--layerwise_upcasting_modules=transformer",
            "--validation_prompts=none",
        ),
    ),
    Claim(
        path="simpletuner/flux_int8.json",
        gpu="rtx4090-24gb",
        source='SimpleTuner documentation/quickstart/FLUX.md: "a bit more than 18G VRAM when quantising to int8"',
    ),
    Claim(
        path="simpletuner/flux_int8.json",
        gpu="a100-40gb",
        source='SimpleTuner documentation/quickstart/FLUX.md: "a bit more than 30G VRAM when not quantising"',
        settings=("base_model_precision=no_change",),
    ),
    Claim(
        path="simpletuner/ltx2_ramtorch.toml",
        gpu="rtx4090-24gb",
        source='SimpleTuner documentation/quickstart/LTXVIDEO2.md: "RamTorch: ~13 GB VRAM", 17 frames in batches of 2',
        # init_precision moves the whole network to the GPU to quantise it there, unless quantize_via is cpu
        settings=("quantize_via=cpu", "validation_num_video_frames=17", "train_batch_size=2"),
    ),
    Claim(
        path="simpletuner/cosmos3_images.json",
        gpu="rtx4090-24gb",
        source="SimpleTuner simpletuner/examples/cosmos3-nano-image-24g.lycoris-lokr: its name",
    ),
    Claim(
        path="simpletuner/cosmos3_images.json",
        gpu="rtx5090-32gb",
        source="SimpleTuner simpletuner/examples/cosmos3-nano-image-32g.lycoris-lokr: its name, in batches of 2 without swapping",
        settings=("train_batch_size=2", "musubi_blocks_to_swap=0"),
    ),
    # cosmos3-super-image-48g fits with its captions cached: the layers that cache them need 60 GiB as they load
    Claim(
        path="simpletuner/cosmos3_images.json",
        gpu="a100-80gb",
        source="SimpleTuner simpletuner/examples/cosmos3-super-image-80g.lycoris-lokr: its name",
        settings=("model_flavour=super",),
    ),
    Claim(
        path="musubi/krea2.toml",
        gpu="rtx5090-32gb",
        source='musubi-tuner-docker src/scripts/krea2/templates/train-baseline.toml: "for a GPU with 32 GB VRAM"',
        settings=("fp8_base=true", "fp8_scaled=true", "gradient_checkpointing=true"),
    ),
    Claim(
        path="ai-toolkit/sd35_24gb.yaml",
        gpu="rtx4090-24gb",
        source="ai-toolkit config/examples/train_lora_sd35_large_24gb.yaml",
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
        path="ai-toolkit/flux_24gb.yaml",
        gpu="rtx4090-24gb",
        source="ai-toolkit config/examples/train_lora_chroma_24gb.yaml",
        settings=("config.process[0].model={name_or_path: lodestones/Chroma, arch: chroma, quantize: true}",),
    ),
    Claim(
        path="ai-toolkit/flux_24gb.yaml",
        gpu="rtx4090-24gb",
        source="ai-toolkit config/examples/train_lora_flex2_24gb.yaml, and its network of rank 32",
        settings=(
            "config.process[0].model={name_or_path: ostris/Flex.2-preview, arch: flex2, quantize: true, quantize_te: true}",
            "config.process[0].network={type: lora, linear: 32, linear_alpha: 32}",
        ),
    ),
    Claim(
        path="ai-toolkit/flux_24gb.yaml",
        gpu="rtx4090-24gb",
        source="ai-toolkit config/examples/train_lora_flux_kontext_24gb.yaml: 512 and 768 only, beside a control image",
        settings=(
            "config.process[0].model={name_or_path: black-forest-labs/FLUX.1-Kontext-dev, arch: flux_kontext, quantize: true}",
            "config.process[0].datasets[0].resolution=[512, 768]",
        ),
    ),
    Claim(
        path="ai-toolkit/qwen_offloaded.yaml",
        gpu="rtx4090-24gb",
        source="ai-toolkit config/examples/train_lora_qwen_image_24gb.yaml: uint3 with its accuracy recovery adapter, up to 1024",
        settings=(
            "config.process[0].model={name_or_path: Qwen/Qwen-Image, arch: qwen_image, quantize: true, qtype: uint3|a/b}",
            "config.process[0].model.low_vram=true",
            "config.process[0].model.quantize_te=true",
            "config.process[0].datasets[0].resolution=[512, 768, 1024]",
        ),
    ),
    Claim(
        path="ai-toolkit/hidream_some_layers.yaml",
        gpu="a6000-48gb",
        source='ai-toolkit config/examples/train_lora_hidream_48.yaml: "both need to be quantized to train on 48GB currently"',
        settings=("config.process[0].datasets[0].resolution=[512, 768, 1024]",),
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
    Claim(
        # 42, 30, 24 and 12 GB without fp8, with it, and with 16 and 45 blocks swapped besides; here 42.4, 24.9, 20.7 and 10.1 GiB:
        # the table is of August 2025, and since September the modulation, 6.8 of 20.4 billion parameters, is kept in fp8 as well
        path="musubi/qwen_24gb.sh",
        gpu="rtx4090-24gb",
        source="musubi-tuner docs/qwen_image.md, VRAM usage: 24GB with fp8_scaled and 16 blocks swapped at 1024x1024",
    ),
    Claim(
        path="musubi/qwen_24gb.sh",
        gpu="a6000-48gb",
        source="musubi-tuner docs/qwen_image.md, VRAM usage: 42GB without options",
        settings=("--fp8_base=false", "--fp8_scaled=false", "--blocks_to_swap=0"),
    ),
    Claim(
        path="musubi/wan21.sh",
        gpu="rtx4090-24gb",
        source='musubi-tuner docs/wan.md: "training with 720x1280 images with 24GB VRAM"',
        settings=(
            "--task=t2v-14B",
            "--fp8_base=true",
            "--gradient_checkpointing=true",
            "dataset.datasets=[{image_directory: /data/stills, resolution: [720, 1280]}]",
        ),
    ),
    Claim(
        path="diffsynth/ti2v_two_v100.sh",
        gpu="v100-32gb",
        source="maior/vision-wan2.2: TI2V-5B in DiffSynth-Studio trains on two V100 of 32 GB at 704x1280, 17 frames",
    ),
    Claim(
        path="cogvideo/t2v_lora.sh",
        gpu="rtx4080-16gb",
        source="CogVideo finetune/README.md: cogvideox-t2v-2b, lora (rank128), DDP, fp16, 49x480x720: 16GB VRAM (NVIDIA 4080)",
    ),
    Claim(
        path="cogvideo/t2v_sft.sh",
        gpu="a100-40gb",
        source="CogVideo finetune/README.md: cogvideox-t2v-2b, sft, DDP, fp16, 49x480x720: 36GB VRAM (NVIDIA A100)",
    ),
    # The table's ZeRO rows of 5B models are of no sum that a step holds: 42, 42 and 43 GB for ZeRO-2 with the states on the host,
    # for ZeRO-2 with 7.8 GiB of them on each of 8 GPUs, and for ZeRO-3; 21.2, 31.1 and 21.0 GiB here. What more tokens cost agrees
    # (13 to 14 GB for the 27,330 more of 81x768x1360, 10.8 GiB here), and so do the rows of the 2B model, whose validation is the
    # worst (17, 17 and 19 GB; 18.0, 20.5 and 19.0 GiB with T5 beside the network). What is left over is about a float32 copy of the
    # weights, 20.8 GiB, which the trainer has on the host alone: it never moves the network, and DeepSpeed's engine casts before it
    # does (runtime/engine.py: _configure_distributed_model). The table is of 12 January 2025 and pins no versions.
    Claim(
        path="cogvideo/i2v_zero.sh",
        gpu="a100-80gb",
        source="CogVideo finetune/README.md: cogvideox1.5-i2v-5b, sft, zero-2 + opt offload, bf16, 81x768x1360: 56GB VRAM",
    ),
    # sd-scripts docs/flux_train_network.md, 6.1, with fp8_base; 10 and 8 GB with 22 and 28 blocks come to 8.7 and 6.6 GiB here
    Claim(
        path="kohya/flux_24gb.sh",
        gpu="rtx4090-24gb",
        source="sd-scripts docs/flux_train_network.md: 24GB VRAM, basic settings work fine (batch size 2)",
    ),
    Claim(
        path="kohya/flux_24gb.sh",
        gpu="rtx4080-16gb",
        source="sd-scripts docs/flux_train_network.md: 16GB VRAM, batch size 1 and blocks_to_swap",
        settings=("dataset.general.batch_size=1", "--blocks_to_swap=8"),
    ),
    Claim(
        path="kohya/flux_24gb.sh",
        gpu="rtx3060-12gb",
        source="sd-scripts docs/flux_train_network.md: 12GB VRAM, blocks_to_swap 16 and 8bit AdamW",
        settings=("dataset.general.batch_size=1", "--blocks_to_swap=16"),
    ),
)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.path}-{claim.gpu}")
def test_what_its_author_says_fits_does(claim: Claim) -> None:
    result = pipeline.inspect(str(CONFIGS / claim.path), overrides=claim.settings, gpu=claim.gpu)
    assert result.verdict in ("fits", "tight"), [finding.message for finding in result.findings if finding.severity == "error"]


def test_a_step_of_hidream_needs_what_its_trainers_author_saw() -> None:
    """ai-toolkit config/examples/train_lora_hidream_48.yaml: "The settings here will take ~35.2GB of vram to train"."""
    process = "config.process[0]"
    settings = (f"{process}.train.cache_text_embeddings=false", f"{process}.datasets[0].resolution=[512, 768, 1024]")
    result = pipeline.inspect(str(CONFIGS / "ai-toolkit/hidream_some_layers.yaml"), overrides=settings, gpu="a6000-48gb")
    assert result.memory is not None
    (step,) = (phase for phase in result.memory.phases if phase.name == "step")
    assert step.reserved_bytes is not None
    assert step.reserved_bytes / 2**30 == pytest.approx(35.2, rel=0.05)
