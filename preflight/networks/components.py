"""Which file models which component of the catalog."""

from __future__ import annotations

from importlib import import_module

from preflight.networks.component import Component

_FILES = {
    "wan2.1-vae": "wan_vae",
    "wan2.2-vae": "wan_vae",
    "sd-vae": "sd_vae",
    "flux-vae": "sd_vae",
    "sd3-vae": "sd_vae",
    "cogvideox-vae": "cogvideox_vae",
    "hunyuanvideo-vae": "hunyuanvideo_vae",
    "ltx-vae": "ltx_vae",
    "ltx2-vae": "ltx2_vae",
    "ltx2.3-vae": "ltx2_vae",
    "qwen-image-vae": "qwen_image_vae",
    "flux2-vae": "flux2_vae",
    "hunyuanvideo1.5-vae": "hunyuanvideo15_vae",
    "mochi-vae": "mochi_vae",
    "dc-ae-f32c32": "dc_ae",
    "t5-xxl": "t5",
    "mt5-xl": "t5",
    "umt5-xxl": "t5",
    "clip-l": "bert_clip",
    "openclip-bigg": "bert_clip",
    "clip-vit-h": "bert_clip",
    "hunyuandit-bert": "bert_clip",
    "siglip-so400m": "siglip",
    "t5-11b": "t5",
    "byt5-glyph": "t5",
    "pile-t5-xl": "t5",
    "llama-3-8b": "llama",
    "llama-3.1-8b": "llama",
    "qwen3-4b": "llama",
    "qwen3-4b-causal": "llama",
    "qwen2.5-vl-7b": "llama",
    "qwen2.5-vl-7b-text": "llama",
    "mistral-small-3.2-24b": "llama",
    "gemma-2-2b": "gemma",
    "gemma-3-12b": "gemma",
}


def component_module(id_: str) -> Component | None:
    """The component with this catalog id, ready to `load`; None where its passes are not modelled."""
    if id_ not in _FILES:
        return None
    family, dims = import_module(f"preflight.networks.{_FILES[id_]}").COMPONENTS[id_]
    component: Component = family(dims)
    return component


def modelled() -> tuple[str, ...]:
    """The catalog ids that `component_module` answers."""
    return tuple(_FILES)
