"""CLIP's two towers and BERT (transformers/models/clip/modeling_clip.py, bert/modeling_bert.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.component import TextEncoder
from preflight.tape.activation import gelu, keeps_result, sigmoid
from preflight.tape.attention import efficient_attention, flash_attention
from preflight.tape.lookup import lookup
from preflight.tape.meter import Size
from preflight.tape.module import Blocks, Checkpointing, Conv, LayerNorm, Linear, Module
from preflight.tape.shaping import cat, narrow
from preflight.tape.tensor import Buffer, Parameter, Tape, Tensor


class Attention(Module):
    """CLIPAttention, or BertSelfAttention with its BertSelfOutput's linear layer."""

    def __init__(self, dim: int, heads: int) -> None:
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (Linear(dim, dim) for _ in range(4))

    def forward(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        batch, tokens, dim = hidden.shape
        query, key, value = self.q_proj(hidden), self.k_proj(hidden), self.v_proj(hidden)
        query, key, value = (x.view(batch, self.heads, tokens, dim // self.heads) for x in (query, key, value))
        out = flash_attention(query, key, value) if mask is None else efficient_attention(query, key, value, mask)
        return self.out_proj(out.view(batch, tokens, dim))


class MLP(Module):
    def __init__(self, dim: int, inner: int, activation: str) -> None:
        self.fc1, self.fc2 = Linear(dim, inner), Linear(inner, dim)
        self.activation = {"gelu": gelu, "quick_gelu": quick_gelu}[activation]

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.fc1(hidden)
        hidden = self.activation(hidden)
        return self.fc2(hidden)


def quick_gelu(x: Tensor) -> Tensor:
    """activations.py: QuickGELUActivation, x sigmoid(1.702 x)."""
    return x * sigmoid(x * 1.702)


class ClipLayer(Module):
    def __init__(self, dims: Mapping[str, Any]) -> None:
        dim = dims["hidden_size"]
        self.self_attn = Attention(dim, dims["num_attention_heads"])
        self.layer_norm1, self.layer_norm2 = LayerNorm(dim), LayerNorm(dim)
        self.mlp = MLP(dim, dims["intermediate_size"], dims["hidden_act"])

    def forward(self, hidden: Tensor) -> Tensor:
        residual = hidden
        hidden = self.layer_norm1(hidden)
        hidden = self.self_attn(hidden, None)
        hidden = residual + hidden
        residual = hidden
        hidden = self.layer_norm2(hidden)
        hidden = self.mlp(hidden)
        return residual + hidden


class BertLayer(Module):
    def __init__(self, dims: Mapping[str, Any]) -> None:
        dim = dims["hidden_size"]
        self.attention = Attention(dim, dims["num_attention_heads"])
        self.mlp = MLP(dim, dims["intermediate_size"], dims["hidden_act"])
        self.norm1, self.norm2 = LayerNorm(dim), LayerNorm(dim)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        attended = self.attention(hidden, mask)
        attended = self.norm1(attended + hidden)
        return self.norm2(self.mlp(attended) + attended)


class ClipText(TextEncoder):
    """`dims` are CLIPTextConfig's arguments; `projects`: CLIPTextModelWithProjection. Called without a mask, as pipelines do."""

    def __init__(self, dims: Mapping[str, Any]) -> None:
        dims = {"hidden_act": "quick_gelu", "max_position_embeddings": 77, "projects": False, **dims}
        dim = dims["hidden_size"]
        self.token_embedding = Parameter((dims["vocab_size"], dim))
        self.position_embedding = Parameter((dims["max_position_embeddings"], dim))
        self.position_ids = Buffer((1, dims["max_position_embeddings"]), "int64")
        self.layers = Blocks(dims["num_hidden_layers"], lambda _: ClipLayer(dims), Checkpointing())
        self.final_layer_norm = LayerNorm(dim)
        self.text_projection = Linear(dim, dims["projection_dim"], bias=False) if dims["projects"] else None

    def last_hidden(self, tape: Tape, batch: Size, tokens: Size) -> Tensor:
        embeds = self._embed(tape.empty((batch, tokens), "int64"))
        hidden = embeds
        for layer in self.layers.walk(tape):
            hidden = layer(hidden)
        return self.final_layer_norm(hidden)

    def _embed(self, ids: Tensor) -> Tensor:
        words = lookup(self.token_embedding, ids)
        return words + lookup(self.position_embedding, narrow(self.position_ids, 1, ids.shape[1]))


class ClipVision(TextEncoder):
    """CLIPVisionModel; `dims` are CLIPVisionConfig's arguments. Encodes an image a sample, whatever the prompt's length.

    Called with output_hidden_states (pipeline_wan_i2v.py: encode_image), which keeps every layer's input.
    """

    def __init__(self, dims: Mapping[str, Any]) -> None:
        dim, self.patch, self.size = dims["hidden_size"], dims["patch_size"], dims["image_size"]
        positions = (self.size // self.patch) ** 2 + 1
        self.class_embedding = Parameter((dim,))
        self.patch_embedding = Conv(3, dim, (self.patch, self.patch), stride=self.patch, bias=False)
        self.position_embedding = Parameter((positions, dim))
        self.position_ids = Buffer((1, positions), "int64")
        self.pre_layrnorm, self.post_layernorm = LayerNorm(dim), LayerNorm(dim)
        self.layers = Blocks(dims["num_hidden_layers"], lambda _: ClipLayer(dims), Checkpointing())

    def last_hidden(self, tape: Tape, batch: Size, tokens: Size) -> Tensor:
        del tokens
        pixels = tape.empty((batch, 3, self.size, self.size), self.class_embedding.dtype)
        hidden = self.pre_layrnorm(self._embed(pixels))
        states = [hidden]
        for layer in self.layers.walk(tape):
            hidden = layer(hidden)
            assert hidden.storage is not None
            hidden.storage.keep()
            states.append(hidden)
        pooled = self.post_layernorm(narrow(hidden, batch, hidden.shape[2]))
        del pooled
        return hidden

    def _embed(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels)
        batch, dim, rows, columns = patches.shape
        patches = patches.view(batch, rows * columns, dim)
        embeds = cat([narrow(self.class_embedding, batch, 1, dim), patches], 1)
        return embeds + lookup(self.position_embedding, self.position_ids)


class Bert(TextEncoder):
    """`dims` are BertConfig's arguments; with its pooler."""

    def __init__(self, dims: Mapping[str, Any]) -> None:
        dims = {"hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 2, **dims}
        dim, positions = dims["hidden_size"], dims["max_position_embeddings"]
        self.word_embeddings = Parameter((dims["vocab_size"], dim))
        self.position_embeddings = Parameter((positions, dim))
        self.token_type_embeddings = Parameter((dims["type_vocab_size"], dim))
        self.position_ids, self.token_type_ids = Buffer((1, positions), "int64"), Buffer((1, positions), "int64")
        self.norm = LayerNorm(dim)
        self.layers = Blocks(dims["num_hidden_layers"], lambda _: BertLayer(dims), Checkpointing())
        self.pooler = Linear(dim, dim)

    def last_hidden(self, tape: Tape, batch: Size, tokens: Size) -> Tensor:
        ids, padding = tape.empty((batch, tokens), "int64"), tape.empty((batch, tokens), "int64")
        embeds = self._embed(ids)
        hidden = embeds
        mask = padding.tape.empty((batch, 1, tokens, tokens), "bool")
        for layer in self.layers.walk(tape):
            hidden = layer(hidden, mask)
        pooled = keeps_result(self.pooler(narrow(hidden, batch, hidden.shape[2])))
        del pooled
        return hidden

    def _embed(self, ids: Tensor) -> Tensor:
        kinds = narrow(self.token_type_ids, *ids.shape)
        hidden = lookup(self.word_embeddings, ids) + lookup(self.token_type_embeddings, kinds)
        hidden = hidden + lookup(self.position_embeddings, narrow(self.position_ids, 1, ids.shape[1]))
        return self.norm(hidden)


# openai/clip-vit-large-patch14, laion/CLIP-ViT-bigG-14-laion2B-39B-b160k (text_config), Wan-AI/Wan2.1-I2V-14B-480P-Diffusers
# image_encoder/config.json, and HunyuanDiT's ipadapter/model_configs/RoBERTa-wwm-ext-large-cn-en.json
COMPONENTS = {
    "clip-l": (
        ClipText,
        {"vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    ),
    "openclip-bigg": (
        ClipText,
        {
            "vocab_size": 49408,
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 20,
            "hidden_act": "gelu",
            "projection_dim": 1280,
            "projects": True,
        },
    ),
    "clip-vit-h": (
        ClipVision,
        {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "hidden_act": "gelu",
            "patch_size": 14,
            "image_size": 224,
        },
    ),
    "hunyuandit-bert": (
        Bert,
        {"vocab_size": 47020, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
    ),
}
