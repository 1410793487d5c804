"""The networks that sd-scripts trains, one script each, and the layers its LoRA adapts (networks/lora*.py)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from preflight.adapters.block_layers import ATTENTION, layers


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """What one script trains.

    `module` is what its LoRA is called in --network_module, `full` says that it trains the network itself, `loads` what the whole
    network is loaded in then: that of the mixed precision, or float32 without --full_bf16. `unet`: attention is written out unless
    a flag asks for another, and checkpoints are reentrant. `cached`: whether --cache_text_encoder_outputs is one of its flags,
    `encoders` how many text encoders it trains beside the network without --network_train_unet_only, and `side` what data it is
    for, in pixels. `fused` says that query, key and value are one layer.
    """

    network: str
    module: str = ""
    named: tuple[tuple[str, str], ...] = ()
    full: bool = False
    loads: str = "float32"
    unet: bool = False
    cached: bool = True
    encoders: int = 0
    side: int = 1024
    fused: bool = False


_FLUX = (("schnell", "flux.1-schnell"), ("kontext", "flux.1-kontext-dev"), ("flex2", "flex.2-preview"), ("flex1", "flex.1-alpha"))
_SD3 = (("35large", "sd3.5-large"), ("35medium", "sd3.5-medium"), ("sd35", "sd3.5-medium"))

KINDS: Mapping[str, Kind] = {
    "train_network": Kind(network="sd1.5", module="lora", unet=True, cached=False, encoders=1, side=512),
    "sdxl_train_network": Kind(network="sdxl", module="lora", unet=True, encoders=2),
    "flux_train_network": Kind(network="flux.1-dev", named=_FLUX, module="lora_flux", encoders=1, fused=True),
    "sd3_train_network": Kind(network="sd3-medium", named=_SD3, module="lora_sd3", encoders=2, fused=True),
    "lumina_train_network": Kind(network="lumina-image-2.0", module="lora_lumina", fused=True),
    "hunyuan_image_train_network": Kind(network="hunyuanimage-2.1", module="lora_hunyuan_image"),
    "anima_train_network": Kind(network="anima", module="lora_anima"),
    "fine_tune": Kind(network="sd1.5", full=True, unet=True, cached=False, side=512),
    "train_db": Kind(network="sd1.5", full=True, unet=True, cached=False, encoders=1, side=512),
    "sdxl_train": Kind(network="sdxl", full=True, unet=True),
    "flux_train": Kind(network="flux.1-dev", named=_FLUX, full=True, loads="mixed"),
    "sd3_train": Kind(network="sd3-medium", named=_SD3, full=True),
    "lumina_train": Kind(network="lumina-image-2.0", full=True, loads="mixed"),
    "anima_train": Kind(network="anima", full=True),
}
PROGRAMS = tuple(f"{name}.py" for name in KINDS)
#: By the module of the LoRA, for a TOML without its launch.
MODULES = {kind.module: name for name, kind in KINDS.items() if kind.module and kind.module != "lora"}
#: Words in the names of checkpoints of SDXL.
XL = ("xl", "pony", "illustrious", "noob", "animagine")

_TWICE = tuple(f"{module}.{name}" for module in ("attn1", "attn2") for name in ATTENTION)
#: networks/lora.py: UNET_TARGET_REPLACE_MODULE, the linear layers of each Transformer2DModel and its 1x1 convolutions.
UNET: Mapping[str, tuple[str, ...]] = {
    "sd1.5": (*_TWICE, "ff.net.0.proj", "ff.net.2"),  # proj_in and proj_out are its convolutions
    "sdxl": (*_TWICE, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"),
}


def targets(network: str) -> list[str]:
    """The layers that the trainer's LoRA adapts in the network called `network`, as that is modelled."""
    return list(UNET[network]) if network in UNET else layers(network)


def plain(text: str) -> str:
    """`text` as names are compared: letters and digits only."""
    return re.sub(r"[^a-z0-9]", "", text.lower())
