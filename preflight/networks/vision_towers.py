"""The vision towers of language models that pipelines load whole: weights that no prompt of text runs through.

transformers: models/qwen2_5_vl, pixtral and siglip.
"""

from __future__ import annotations

from preflight.tape.module import Blocks, Checkpointing, Conv, Linear, Module
from preflight.tape.tensor import Buffer, Parameter


class QwenBlock(Module):
    def __init__(self) -> None:
        dim, inner = 1280, 3420
        self.norm1, self.norm2 = Parameter((dim,)), Parameter((dim,))
        self.qkv, self.proj = Linear(dim, 3 * dim), Linear(dim, dim)
        self.gate_proj, self.up_proj, self.down_proj = Linear(dim, inner), Linear(dim, inner), Linear(inner, dim)


class QwenTower(Module):
    """Qwen2_5_VisionTransformerPretrainedModel of Qwen2.5-VL 7B."""

    def __init__(self) -> None:
        dim, merged = 1280, 5120
        self.patch_embed = Conv(3, dim, (2, 14, 14), bias=False)
        self.blocks = Blocks(32, lambda _: QwenBlock(), Checkpointing())
        self.ln_q = Parameter((dim,))
        self.mlp = [Linear(merged, merged), Linear(merged, 3584)]
        self.inv_freq, self.original_inv_freq = Buffer((20,)), Buffer((20,))


class MistralBlock(Module):
    def __init__(self) -> None:
        dim, inner = 1024, 4096
        self.attention_norm, self.ffn_norm = Parameter((dim,)), Parameter((dim,))
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (Linear(dim, dim, bias=False) for _ in range(4))
        self.gate_proj, self.up_proj = Linear(dim, inner, bias=False), Linear(dim, inner, bias=False)
        self.down_proj = Linear(inner, dim, bias=False)


class MistralTower(Module):
    """PixtralVisionModel of Mistral Small 3.2, and the projector behind it."""

    def __init__(self) -> None:
        dim, text = 1024, 5120
        self.patch_conv = Conv(3, dim, (14, 14), bias=False)
        self.ln_pre, self.norm = Parameter((dim,)), Parameter((dim,))
        self.layers = Blocks(24, lambda _: MistralBlock(), Checkpointing())
        self.merging_layer = Linear(4 * dim, dim, bias=False)
        self.linear_1, self.linear_2 = Linear(dim, text, bias=False), Linear(text, text, bias=False)
        self.inv_freq, self.original_inv_freq = Buffer((32,)), Buffer((32,))
