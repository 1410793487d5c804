"""SimpleTuner's model families: the networks that their flavours are, and what each family decides whatever the config says.

helpers/models/FAMILY/model.py of github.com/bghira/SimpleTuner (commit bc8e6ab): HUGGINGFACE_PATHS, DEFAULT_MODEL_FLAVOUR,
DEFAULT_LORA_TARGET, check_user_config and adjust_video_frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ATTENTION = ("to_k", "to_q", "to_v", "to_out.0")
JOINT = ("add_k_proj", "add_q_proj", "add_v_proj", "to_add_out")
FEED = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")
SINGLE = ("proj_mlp", "proj_out")
#: flux/model.py: get_lora_target_layers, by --flux_lora_target; less what only a network with fused projections has.
FLUX_TARGETS: Mapping[str, tuple[str, ...]] = {
    "all": (*ATTENTION, *JOINT),
    "context": JOINT,
    "context+ffs": (*JOINT, *FEED[2:]),
    "all+ffs": (*ATTENTION, *JOINT, *FEED, *SINGLE),
    "all+ffs+embedder": ("x_embedder", *ATTENTION, *JOINT, *FEED, *SINGLE),
    "ai-toolkit": (*ATTENTION, *JOINT, *FEED, "norm.linear", "norm1.linear", "norm1_context.linear", *SINGLE),
    "tiny": ("single_transformer_blocks.7.proj_out", "single_transformer_blocks.20.proj_out"),
    "nano": ("single_transformer_blocks.7.proj_out",),
}
#: Layers that none of these networks has as long as its projections are not fused.
FUSED = frozenset({"to_qkv", "add_qkv_proj"})
#: ltxvideo2/model.py: get_lora_target_layers, for data without sound, which drops what turns video into sound.
SILENT_LTX2 = tuple(
    f"{module}.{part}" for module in ("attn1", "attn2", "audio_attn1", "audio_attn2", "audio_to_video_attn") for part in ATTENTION
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """`flavours` are names that the catalog knows, or knows not to be modelled; the first is the trainer's own choice.

    `alignment` is what the family forces sides to be multiples of, `frames` what it rounds a clip down to (n x it + 1). `dims` are
    a flavour's own dimensions. `silent` says that without a prompt it does not validate (validation_disable_unconditional), and
    `framerate` how many frames a second of a clip has where the config gives none. `stills`: images where nothing says clips.
    """

    flavours: Mapping[str, str]
    alignment: int | None = None
    frames: int = 1
    framerate: int = 30
    stills: bool = False
    targets: tuple[str, ...] = ATTENTION
    dims: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    silent: bool = False
    norms: str = "composite"
    video: bool = False
    tiling: bool = False
    interval: bool = True


_FLUX2 = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.to_qkv_mlp_proj")
FAMILIES: Mapping[str, Family] = {
    "wan": Family(
        flavours={
            "t2v-480p-1.3b-2.1": "wan2.1-t2v-1.3b",
            "t2v-480p-14b-2.1": "wan2.1-t2v-14b",
            "i2v-14b-2.1": "wan2.1-i2v-14b",
            "i2v-14b-2.1-720p": "wan2.1-i2v-14b",
            "i2v-14b-2.2-high": "wan2.2-i2v-a14b",
            "i2v-14b-2.2-low": "wan2.2-i2v-a14b",
            "animegen-t2v-high": "wan2.2-t2v-a14b",
            "animegen-t2v-low": "wan2.2-t2v-a14b",
            "flf2v-14b-2.1": "Wan2.1 FLF2V 14B",
            "vace-1.3b-2.1": "wan2.1-vace-1.3b",
            "vace-14b-2.1": "wan2.1-vace-14b",
            "ti2v-5b-2.2": "wan2.2-ti2v-5b",
        },
        alignment=32,  # 64 for a flavour with "5b" in its name
        frames=8,
        framerate=15,
        silent=True,
        norms="plain",  # its transformer is built from diffusers' Attention, whose norms are diffusers' own class
        video=True,
        tiling=True,  # check_user_config: vae_enable_tiling = True
    ),
    "flux": Family(
        flavours={
            "krea": "flux.1-dev",  # the same network as dev's
            "dev": "flux.1-dev",
            "schnell": "flux.1-schnell",
            "kontext": "flux.1-kontext-dev",
            "fluxbooru": "flux.1-dev",
            "libreflux": "flux.1-schnell",
        },
        alignment=64,
        targets=FLUX_TARGETS["all"],
    ),
    "flux2": Family(
        flavours={"klein-9b": "FLUX.2 klein 9B", "klein-4b": "flux.2-klein-4b", "dev": "flux.2-dev"}, alignment=16, targets=_FLUX2
    ),
    "sd3": Family(flavours={"medium": "sd3.5-medium", "large": "sd3.5-large"}, alignment=64),
    "sdxl": Family(
        flavours={"base-1.0": "sdxl", "base-0.9": "sdxl", "refiner-1.0": "SDXL refiner", "refiner-0.9": "SDXL refiner"},
        alignment=64,
        interval=False,
    ),
    "sd1x": Family(
        flavours={"dreamshaper": "sd1.5", "1.5": "sd1.5", "1.4": "sd1.5", "realvis": "sdxl"}, alignment=64, interval=False
    ),
    "hidream": Family(
        flavours=dict.fromkeys(("full", "dev", "fast"), "hidream-i1"),
        alignment=64,
        targets=("to_q", "to_k", "to_v"),  # its to_out is one layer, so the default to_out.0 finds nothing
    ),
    "pixart": Family(
        flavours={
            "900M-1024-v0.6": "PixArt 900M",
            "900M-1024-v0.7-stage1": "PixArt 900M",
            "900M-1024-v0.7-stage2": "PixArt 900M",
            "600M-512": "pixart-sigma",
            "600M-1024": "pixart-sigma",
            "600M-2048": "pixart-sigma",
        },
        alignment=64,
    ),
    "sana": Family(
        flavours={
            "sana1.5-4.8b-1024": "SANA 1.5 4.8B",
            "sana1.5-1.6b-1024": "SANA 1.5 1.6B",
            "sana1.0-1.6b-2048": "sana-1.6b",
            "sana1.0-1.6b-1024": "sana-1.6b",
            "sana1.0-600m-1024": "SANA 600M",
            "sana1.0-600m-512": "SANA 600M",
        },
        alignment=64,
    ),
    "lumina2": Family(flavours={"2.0": "lumina-image-2.0", "neta-lumina": "lumina-image-2.0"}, alignment=64),
    "auraflow": Family(
        flavours={"v0.3": "auraflow", "v0.2": "auraflow", "v0.1": "auraflow", "pony": "auraflow"},
        alignment=64,
        targets=(*ATTENTION, *JOINT),
    ),
    "chroma": Family(flavours=dict.fromkeys(("base", "hd", "flash"), "chroma1-hd"), targets=FLUX_TARGETS["all"]),
    "cosmos": Family(flavours={"2b": "cosmos-predict2-2b-text2image", "14b": "cosmos-predict2-14b-text2image"}, alignment=16),
    "ltxvideo": Family(
        flavours={"0.9.5": "ltx-video-2b", "0.9.0": "ltx-video-2b"},
        alignment=64,
        frames=8,
        framerate=25,
        silent=True,
        video=True,
    ),
    "ltxvideo2": Family(
        flavours={
            "dev": "ltx-2-19b",
            "dev-fp4": "ltx-2-19b",
            "dev-fp8": "ltx-2-19b",
            "2.3-dev": "ltx-2.3-22b",
            "2.3-distilled": "ltx-2.3-22b",
            "2.5-dev": "LTX-2.5",
            "2.5-distilled": "LTX-2.5",
        },
        alignment=64,
        frames=8,
        framerate=25,
        targets=SILENT_LTX2,
        video=True,
    ),
    "hunyuanvideo": Family(
        flavours=dict.fromkeys(
            ("t2v-480p", "t2v-720p", "t2v-480p-distilled", "i2v-480p", "i2v-720p", "i2v-480p-distilled", "i2v-720p-distilled"),
            "hunyuanvideo-1.5",
        ),
        frames=4,
        targets=(*ATTENTION, *JOINT),
        video=True,
    ),
    "qwen_image": Family(
        flavours={
            "v2.0": "qwen-image",
            "v1.0": "qwen-image",
            "edit-v1": "qwen-image-edit",
            "edit-v2": "qwen-image-edit",
            "edit-v2+": "qwen-image-edit",
            "edit-v3": "Qwen-Image-Edit-2511",
        },
        alignment=32,
    ),
    "z_image": Family(flavours=dict.fromkeys(("turbo-ostris-v2", "base", "turbo", "ostris-de-turbo"), "z-image")),
    "kolors": Family(flavours={"1.0": "kolors"}, interval=False),
    "longcat_image": Family(flavours={"final": "longcat-image", "dev": "longcat-image", "edit": "LongCat Image Edit"}),
    "sanavideo": Family(flavours={"2b-480p": "sana-video-2b"}, frames=8, framerate=16, video=True),
    "cosmos3": Family(
        flavours={
            "nano": "cosmos3-nano",
            "edge": "cosmos3-edge",
            "super": "cosmos3-super",
            "super-i2v": "cosmos3-super",
            "super-t2i": "cosmos3-super",
        },
        alignment=16,
        frames=4,
        framerate=24,
        stills=True,
        targets=("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
        video=True,
    ),
    "longcat_video": Family(
        flavours={"final": "longcat-video"}, alignment=64, frames=8, targets=("qkv", "proj", "q_linear", "kv_linear"), video=True
    ),
    "kandinsky5_video": Family(
        flavours={
            "t2v-lite-sft-5s": "kandinsky5-t2v-lite",
            "t2v-lite-pretrain-5s": "kandinsky5-t2v-lite",
            "t2v-lite-sft-10s": "Kandinsky 5 Lite of ten seconds",
            "t2v-lite-pretrain-10s": "Kandinsky 5 Lite of ten seconds",
            "t2v-pro-sft-5s-hd": "Kandinsky 5 Pro",
            "t2v-pro-sft-10s-hd": "Kandinsky 5 Pro",
            "t2v-pro-pretrain-5s-hd": "Kandinsky 5 Pro",
            "t2v-pro-pretrain-10s-hd": "Kandinsky 5 Pro",
            "i2v-lite-5s": "kandinsky5-t2v-lite",
            "i2v-pro-sft-5s": "Kandinsky 5 Pro",
        },
        frames=4,
        framerate=24,
        targets=("to_key", "to_query", "to_value"),
        video=True,
    ),
}
#: Families whose networks are not modelled, by the names that people know them by (helpers/models/model_metadata.json).
OTHERS: Mapping[str, str] = {
    "ace_step": "ACE-Step", "anima": "Anima", "boogu_image": "Boogu-Image", "deepfloyd": "DeepFloyd IF",
    "ernie": "ERNIE-Image", "heartmula": "HeartMuLa", "ideogram": "Ideogram 4", "infinitetalk": "InfiniteTalk",
    "kandinsky5_image": "Kandinsky 5 Image", "krea2": "Krea 2",
    "mageflow": "Mage-Flow", "minimaxh3": "MiniMax H3",
    "minimaxmusic": "MiniMax Music 3", "omnigen": "OmniGen", "sd2x": "Stable Diffusion 2",
    "stable_cascade": "Stable Cascade", "wan_s2v": "Wan2.2 S2V 14B", "z_image_omni": "Z-Image Omni", "zlab_i1": "zlab i1",
}  # fmt: skip
#: Another word that models/registry.py takes for a family.
RENAMED = {
    "cosmos2image": "cosmos",
    "pixart_sigma": "pixart",
    "kandinsky5-video": "kandinsky5_video",
    "kandinsky5-image": "kandinsky5_image",
}
