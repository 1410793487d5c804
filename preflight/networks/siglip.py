"""SigLIP's vision tower (transformers: models/siglip/modeling_siglip.py), an image encoder, and a part of Gemma 3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.bert_clip import MLP, ClipLayer
from preflight.networks.component import TextEncoder
from preflight.tape.lookup import lookup
from preflight.tape.meter import Size
from preflight.tape.module import Blocks, Checkpointing, Conv, LayerNorm, Linear, Module
from preflight.tape.tensor import Buffer, Parameter, Tape, Tensor

SO400M: Mapping[str, Any] = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "patch_size": 14,
}


class SiglipVision(TextEncoder):
    """`dims` are SiglipVisionConfig's arguments. Encodes an image a sample, whatever the prompt's length."""

    def __init__(self, dims: Mapping[str, Any]) -> None:
        dim, self.patch, self.size = dims["hidden_size"], dims["patch_size"], dims["image_size"]
        positions = (self.size // self.patch) ** 2
        self.patch_embedding = Conv(3, dim, (self.patch, self.patch), stride=self.patch)
        self.position_embedding = Parameter((positions, dim))
        self.position_ids = Buffer((1, positions), "int64")
        self.layers = Blocks(dims["num_hidden_layers"], lambda _: ClipLayer(dims), Checkpointing())
        self.post_layernorm = LayerNorm(dim)
        self.head = PoolingHead(dims) if dims.get("vision_use_head", True) else None

    def last_hidden(self, tape: Tape, batch: Size, tokens: Size) -> Tensor:
        del tokens
        pixels = tape.empty((batch, 3, self.size, self.size), self.patch_embedding.weight.dtype)
        embeds = self._embed(pixels)
        hidden = embeds
        for layer in self.layers.walk(tape):
            hidden = layer(hidden)
        return self.post_layernorm(hidden)

    def _embed(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels)
        batch, dim, rows, columns = patches.shape
        return patches.view(batch, rows * columns, dim) + lookup(self.position_embedding, self.position_ids)


class PoolingHead(Module):
    """SiglipMultiheadAttentionPoolingHead; its keys and values take less than the layers did, so it is not run."""

    def __init__(self, dims: Mapping[str, Any]) -> None:
        dim = dims["hidden_size"]
        self.probe = Parameter((1, 1, dim))
        self.in_proj, self.out_proj = Linear(dim, 3 * dim), Linear(dim, dim)
        self.layernorm = LayerNorm(dim)
        self.mlp = MLP(dim, dims["intermediate_size"], dims["hidden_act"])


class Tower(Module):
    """What Gemma 3 12B loads of it, and the projector behind it: no prompt of text runs through."""

    def __init__(self) -> None:
        self.vision_tower = SiglipVision({**SO400M, "image_size": 896, "vision_use_head": False})
        self.mm_input_projection_weight = Parameter((1152, 3840))
        self.mm_soft_emb_norm = Parameter((1152,))


# black-forest-labs/FLUX.1-Redux-dev, image_encoder/config.json
COMPONENTS = {"siglip-so400m": (SiglipVision, {**SO400M, "image_size": 384})}
