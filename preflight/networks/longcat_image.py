"""LongCat-Image transformers (diffusers/models/transformers/transformer_longcat_image.py): FLUX.1 that knows of time alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.flux import Flux
from preflight.networks.modulated import TimestepEmbedder
from preflight.tape.module import Checkpointing


class LongCatImage(Flux):
    """Text is not pooled, and nothing says how strong the guidance is."""

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        super().__init__({**dims, "guidance_embeds": False}, checkpointing, extend=extend)
        dim = dims["num_attention_heads"] * dims["attention_head_dim"]
        self.time_text_embed = TimestepEmbedder(dim)  # type: ignore[assignment]  # in the same place, asked for less


NETWORK = LongCatImage
