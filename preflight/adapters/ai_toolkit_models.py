"""What ai-toolkit does with each architecture: the network it is, its buckets, and where its parts are while it trains.

`arch` is a name of toolkit/config_modules.py: ModelConfig, or the class attribute of a model under toolkit/models and
extensions_built_in/diffusion_models of github.com/ostris/ai-toolkit, commit 27a03a9.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

Loading = Literal["alone", "apart", "beside", "first"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Arch:
    """`network` is its id, or what finds that by the model's path; `step`: get_bucket_divisibility, pixels.

    `quantizes`: whether load_model moves the whole transformer to the GPU before it quantises it: never (quantize_model takes block
    by block), unless low_vram, or always. `layers`: it knows layer_offloading. `own_text`: text encoders follow qtype_te, else
    qtype as well. `blocks`: get_quantization_exclude_modules leaves what is not in the blocks. `experts`: two of them. `encodes`:
    the first frame is encoded in each step, cached latents or not. `unloads` and `tiles` are what low_vram does in sampling.
    `guided`: the network is told the guidance, so that its pipeline runs no unconditioned half. `text`: where load_model has the
    network while it loads the text encoders, without low_vram and with it; `text_on_host`: it narrows them before they come.
    """

    network: str | Callable[[str], tuple[str, bool]]
    step: int = 16
    quantizes: Literal["never", "unless-low-vram", "always"] = "never"
    layers: bool = False
    own_text: bool = False
    blocks: bool = False
    experts: bool = False
    encodes: bool = False
    unloads: bool = False
    tiles: bool = False
    guided: bool = False
    text: tuple[Loading, Loading] = ("beside", "beside")
    text_on_host: bool = False


def _by_words(*pairs: tuple[str, str], otherwise: str) -> Callable[[str], tuple[str, bool]]:
    """A network's id by the first word that a path has, and whether any of them said it."""

    def find(path: str) -> tuple[str, bool]:
        plain = re.sub(r"[^a-z0-9]", "", path.lower())
        known = next((name for word, name in pairs if word in plain), None)
        return known or otherwise, known is not None

    return find


_FLUX = _by_words(
    ("flex1", "flex.1-alpha"), ("flex2", "flex.2-preview"), ("kontext", "flux.1-kontext-dev"), ("schnell", "flux.1-schnell"),
    ("flux1dev", "flux.1-dev"), ("fluxdev", "flux.1-dev"), otherwise="flux.1-dev",
)  # fmt: skip
_WAN21 = _by_words(
    ("13b", "wan2.1-t2v-1.3b"), ("14b", "wan2.1-t2v-14b"), otherwise="wan2.1-t2v-14b",
)  # fmt: skip
_SD3 = _by_words(
    ("35large", "sd3.5-large"), ("35medium", "sd3.5-medium"), ("3medium", "sd3-medium"),
    otherwise="sd3.5-large",
)  # fmt: skip

_RETURNS: tuple[Loading, Loading] = ("beside", "apart")
_WAITS: tuple[Loading, Loading] = ("beside", "alone")

_QWEN = Arch(network="qwen-image", step=32, layers=True, own_text=True, tiles=True, text=_WAITS)
_EDIT = replace(_QWEN, network="qwen-image-edit")
_WAN = Arch(network=_WAN21, quantizes="unless-low-vram", layers=True, unloads=True, tiles=True, text=_RETURNS)
_WAN22 = replace(_WAN, network="wan2.2-t2v-a14b", blocks=True, experts=True)
_LTX2 = Arch(network="ltx-2-19b", step=32, layers=True, own_text=True, text=_WAITS, text_on_host=True)

ARCHS: dict[str, Arch] = {
    "sd1": Arch(network="sd1.5"),
    "sdxl": Arch(network="sdxl"),
    "sd3": Arch(network=_SD3, step=32, quantizes="unless-low-vram"),
    "pixart_sigma": Arch(network="pixart-sigma"),
    "auraflow": Arch(network="auraflow"),
    "flux": Arch(network=_FLUX, step=32, quantizes="unless-low-vram", guided=True),
    "flex1": Arch(network="flex.1-alpha", step=32, quantizes="unless-low-vram", guided=True),
    "flex2": Arch(network="flex.2-preview", quantizes="always"),
    "flux_kontext": Arch(network="flux.1-kontext-dev", quantizes="always", guided=True),
    "flux2": Arch(network="flux.2-dev", layers=True, guided=True, text=_WAITS),
    "flux2_klein_4b": Arch(network="flux.2-klein-4b", layers=True, text=_WAITS),
    "lumina2": Arch(network="lumina-image-2.0", quantizes="always"),
    "chroma": Arch(network="chroma1-hd", step=32, quantizes="always"),
    "hidream": Arch(network="hidream-i1", quantizes="unless-low-vram", own_text=True, text=("first", "apart")),
    "qwen_image": _QWEN,
    "qwen_image_edit": _EDIT,
    "qwen_image_edit_plus": _EDIT,
    "zimage": Arch(network="z-image", layers=True, own_text=True, text=_WAITS),
    "ltx2": _LTX2,
    "ltx2.3": replace(_LTX2, network="ltx-2.3-22b"),
    "wan21": _WAN,
    "wan21_i2v": replace(_WAN, network="wan2.1-i2v-14b", encodes=True),
    "wan22_5b": replace(_WAN, network="wan2.2-ti2v-5b", step=32, blocks=True),
    "wan22_14b": _WAN22,
    "wan22_14b_i2v": replace(_WAN22, network="wan2.2-i2v-a14b", encodes=True, tiles=False),
}

#: Those that ai-toolkit has and this does not, by what they are called.
ELSEWHERE = {
    "sd2": "Stable Diffusion 2", "vega": "Segmind Vega", "ssd": "SSD-1B", "pixart": "PixArt Alpha", "cogview4": "CogView 4",
    "omnigen2": "OmniGen2", "hidream_e1": "HiDream E1", "hidream_o1": "HiDream O1", "flux2_klein_9b": "FLUX.2 [klein] 9B",
    "chroma_radiance": "Chroma Radiance", "zeta_chroma": "Zeta Chroma", "zimage_l2p": "Z-Image L2P", "f-lite": "F Lite",
    "anima": "Anima", "boogu_image": "Boogu Image", "boogu_image_edit": "Boogu Image Edit", "ernie_image": "ERNIE Image",
    "ideogram4": "Ideogram 4", "krea2": "Krea 2", "mageflow": "MageFlow", "mageflow_edit": "MageFlow Edit",
    "minimax_h3": "MiniMax H3", "minimax_h3_ref2va": "MiniMax H3 Ref2VA", "nucleus_image": "Nucleus Image",
    "prx_pixel": "PRX Pixel", "ltx2.5": "LTX-2.5", "ace_step_15": "ACE-Step 1.5", "ace_step_15_xl": "ACE-Step 1.5 XL",
}  # fmt: skip

#: Older configs say their architecture by a flag; the first that is true holds (ModelConfig).
FLAGS = {
    "is_v2": "sd2", "is_v3": "sd3", "is_xl": "sdxl", "is_pixart": "pixart", "is_pixart_sigma": "pixart_sigma",
    "is_auraflow": "auraflow", "is_flux": "flux", "is_lumina2": "lumina2", "is_vega": "vega", "is_ssd": "ssd",
}  # fmt: skip


def bucket(resolution: int, step: int) -> tuple[int, int]:
    """(width, height) of a square picture in its bucket (toolkit/buckets.py: get_bucket_for_image_size)."""
    below, above = resolution // step * step, -(-resolution // step) * step
    sides = [(w, h) for w, h in ((below, below), (below, above)) if 0 < w * h <= resolution**2]
    return min(sides, key=lambda side: resolution**2 - side[0] * side[1]) if sides else (max(step, below), max(step, below))
