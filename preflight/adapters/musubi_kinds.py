"""The networks that musubi-tuner trains, one script each, and the layers its LoRA adapts (networks/lora_*.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from preflight.adapters.block_layers import layers

#: networks/lora.py: layers whose names match are left out; those of modulation, in the names of the networks that are modelled.
MODULATION = ("norm1.linear", "norm1_context.linear", "norm.linear", "adaLN_modulation.0")
#: networks/lora_wan.py: every linear layer of a WanAttentionBlock, in the trainer's own names.
WAN = ("q", "k", "v", "o", "ffn.0", "ffn.2")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """What one script trains: by its --task or --model_version, each with its default.

    `networks` are by that word. `module` is what its LoRA is called in --network_module, `modulated` whether that adapts the
    modulation too, and `fused` whether query, key and value are one layer there. `full` says that the script trains the network
    itself, `unscaled` that it has no --fp8_scaled; `vae` is what the VAE is loaded in, and sides are multiples of `multiple`.
    """

    networks: Mapping[str, str]
    usual: str
    key: str | None = None
    module: str = ""
    video: bool = False
    modulated: bool = False
    fused: bool = False
    full: bool = False
    vae: str = "bf16"
    multiple: int = 16
    unscaled: bool = False


#: wan/configs/__init__.py: WAN_CONFIGS
TASKS = {
    "t2v-14B": "wan2.1-t2v-14b",
    "t2v-1.3B": "wan2.1-t2v-1.3b",
    "i2v-14B": "wan2.1-i2v-14b",
    "t2i-14B": "wan2.1-t2v-14b",
    "flf2v-14B": "flf2v-14B",
    "t2v-1.3B-FC": "wan2.1-fun-1.3b-control",
    "t2v-14B-FC": "wan2.1-fun-14b-control",
    "i2v-14B-FC": "wan2.1-fun-14b-control",
    "i2v-A14B": "wan2.2-i2v-a14b",
    "t2v-A14B": "wan2.2-t2v-a14b",
}
#: Those that preflight/networks/wan_musubi.py writes as the trainer does.
OWN_CODE = frozenset({"wan2.1-t2v-14b", "wan2.1-t2v-1.3b", "wan2.2-t2v-a14b", "wan2.2-i2v-a14b"})
#: Those with two experts.
EXPERTS = frozenset({"wan2.2-t2v-a14b", "wan2.2-i2v-a14b"})
#: qwen_image/qwen_image_utils.py: resolve_model_version_args
QWEN = {
    "original": "qwen-image",
    "edit": "qwen-image-edit",
    "edit-2509": "qwen-image-edit",
    "edit-2511": "Qwen-Image-Edit-2511",
    "layered": "qwen_image_layered",
}
#: flux_2/flux2_utils.py: FLUX2_MODEL_INFO
FLUX2 = {
    "dev": "flux.2-dev",
    "klein-4b": "flux.2-klein-4b",
    "klein-base-4b": "flux.2-klein-4b",
    "klein-9b": "flux.2-klein-9b",
    "klein-base-9b": "flux.2-klein-9b",
}


def _one(network: str, **more: object) -> Kind:
    return Kind(networks={"": network}, usual="", **more)  # type: ignore[arg-type]  # the fields of Kind


_HUNYUAN = _one("hunyuanvideo", module="lora", video=True, fused=True, vae="fp16", unscaled=True)
_QWEN = Kind(networks=QWEN, usual="original", key="model_version", module="lora_qwen_image", modulated=True)
_Z_IMAGE = _one("z-image", module="lora_zimage", vae="fp32")
KINDS: Mapping[str, Kind] = {
    "wan_train_network": Kind(networks=TASKS, usual="t2v-14B", key="task", module="lora_wan", video=True),
    "hv_train_network": _HUNYUAN,
    "hv_1_5_train_network": _one("hunyuanvideo-1.5", module="lora_hv_1_5", video=True, modulated=True, vae="fp16"),
    "fpack_train_network": _one("framepack", module="lora_framepack", video=True, vae="fp16"),
    "flux_kontext_train_network": _one("flux.1-kontext-dev", module="lora_flux", fused=True),
    "flux_2_train_network": Kind(networks=FLUX2, usual="dev", key="model_version", module="lora_flux_2", fused=True, vae="fp32"),
    "qwen_image_train_network": _QWEN,
    "zimage_train_network": _Z_IMAGE,
    "kandinsky5_train_network": _one("kandinsky5", module="lora_kandinsky", video=True),
    "krea2_train_network": _one("krea2", module="lora_krea2"),
    "hidream_o1_train_network": _one("hidream-o1", module="lora_hidream_o1", multiple=32),
    "ideogram4_train_network": _one("ideogram4", module="lora_ideogram4"),
    "qwen_image_train": Kind(networks=QWEN, usual="original", key="model_version", full=True),
    "zimage_train": _one("z-image", full=True, vae="fp32"),
    "hidream_o1_train": _one("hidream-o1", full=True, multiple=32),
    "hv_train": _one("hunyuanvideo", video=True, full=True, vae="fp16", unscaled=True),
}
MODULES = {kind.module: name for name, kind in KINDS.items() if kind.module}
PROGRAMS = tuple(ending for name in KINDS for ending in (f"{name}.py", f"musubi_tuner.{name}"))


def targets(kind: Kind, network: str) -> list[str]:
    """The layers that the kind's LoRA adapts in the network called `network`, as that is modelled."""
    if network in OWN_CODE:
        return list(WAN)
    return [name for name in layers(network) if kind.modulated or name not in MODULATION]
