"""Trace the real text encoders and VAEs without a GPU: `python tests/truth/trace_components.py > tests/truth/components.jsonl`.

Needs torch, diffusers and transformers. Each pass runs forward under torch.no_grad with fake tensors; every storage counts from
the operator that makes it until Python drops it, in the caching allocator's 512-byte blocks. Memory inside kernels is not seen.
"""

from __future__ import annotations

import json
import weakref
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_KL: dict[str, Any] = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 256}
_KL |= {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
_KL_16 = {**_KL, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
_WAN_22: dict[str, Any] = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
}
_WAN_22 |= {"patch_size": 2, "scale_factor_spatial": 16, "latents_mean": [0.0] * 48, "latents_std": [1.0] * 48}
_T5: dict[str, Any] = {"d_ff": 10240, "d_kv": 64, "d_model": 4096, "num_layers": 24, "num_heads": 64}
_T5 |= {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
_BIGG = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
_CLIP_VIT_H: dict[str, Any] = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
_CLIP_VIT_H |= {"hidden_act": "gelu", "patch_size": 14, "image_size": 224}
_LLAMA = {"vocab_size": 128320, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
_LLAMA |= {"num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192}
LLAMA_TEMPLATE = 95  # pipeline_hunyuan_video.py: tokens of DEFAULT_PROMPT_TEMPLATE before the prompt, crop_start
_BERT = {"vocab_size": 47020, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
# component: class, its configuration, and for a VAE its stride in frames and pixels and its latent channels
COMPONENTS: dict[str, tuple[str, dict[str, Any], tuple[int, int, int] | None]] = {
    "wan2.1-vae": ("AutoencoderKLWan", {}, (4, 8, 16)),
    "wan2.2-vae": ("AutoencoderKLWan", _WAN_22, (4, 16, 48)),
    "sd-vae": ("AutoencoderKL", _KL, (1, 8, 4)),
    "flux-vae": ("AutoencoderKL", _KL_16, (1, 8, 16)),
    "sd3-vae": ("AutoencoderKL", _KL_16, (1, 8, 16)),
    "cogvideox-vae": ("AutoencoderKLCogVideoX", {}, (4, 8, 16)),
    "hunyuanvideo-vae": ("AutoencoderKLHunyuanVideo", {}, (4, 8, 16)),
    "ltx-vae": ("AutoencoderKLLTXVideo", {}, (8, 32, 128)),
    "t5-xxl": ("T5EncoderModel", {**_T5, "vocab_size": 32128}, None),
    "mt5-xl": ("T5EncoderModel", {**_T5, "vocab_size": 250112, "d_model": 2048, "d_ff": 5120, "num_heads": 32}, None),
    "umt5-xxl": ("UMT5EncoderModel", {**_T5, "vocab_size": 256384}, None),
    "clip-l": ("CLIPTextModel", {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}, None),
    "openclip-bigg": ("CLIPTextModelWithProjection", {**_BIGG, "hidden_act": "gelu", "projection_dim": 1280}, None),
    "hunyuandit-bert": ("BertModel", _BERT, None),
    "clip-vit-h": ("CLIPVisionModel", _CLIP_VIT_H, None),
    "llama-3-8b": ("LlamaModel", _LLAMA, None),
}
# component, dtype, [(batch, height, width, frames)] encoded and decoded, option
VAE_CASES: list[tuple[str, str, list[tuple[int, int, int, int]], str | None]] = [
    ("wan2.1-vae", "fp32", [(1, 480, 832, 1), (1, 480, 832, 13), (1, 480, 832, 81), (2, 256, 384, 17)], None),
    ("wan2.1-vae", "bf16", [(1, 720, 1280, 81), (3, 256, 384, 5)], None),
    ("wan2.1-vae", "fp32", [(1, 480, 832, 33)], "use_tiling"),
    ("wan2.1-vae", "fp32", [(2, 480, 832, 9)], "use_slicing"),
    ("wan2.2-vae", "fp32", [(1, 704, 1280, 121), (1, 480, 832, 5)], None),
    ("wan2.2-vae", "bf16", [(1, 704, 1280, 41), (2, 256, 384, 17)], None),
    ("wan2.2-vae", "bf16", [(1, 704, 1280, 41)], "use_tiling"),
    ("sd-vae", "fp32", [(1, 1024, 1024, 1), (4, 512, 768, 1)], None),
    ("sd-vae", "fp16", [(2, 1024, 1024, 1)], None),
    ("sd-vae", "fp32", [(2, 768, 1024, 1)], "use_tiling"),
    ("sd-vae", "fp32", [(3, 768, 1024, 1)], "use_slicing"),
    ("flux-vae", "bf16", [(1, 1024, 1024, 1)], None),
    ("sd3-vae", "fp16", [(2, 1024, 1024, 1)], None),
    ("cogvideox-vae", "bf16", [(1, 480, 720, 49), (1, 768, 1360, 9), (1, 256, 256, 1), (2, 240, 368, 17)], None),
    ("cogvideox-vae", "fp16", [(1, 480, 720, 16)], None),
    ("cogvideox-vae", "bf16", [(1, 480, 720, 49)], "use_tiling"),
    ("hunyuanvideo-vae", "fp16", [(1, 480, 832, 33), (1, 720, 1280, 129), (2, 256, 384, 5), (1, 256, 384, 1)], None),
    ("hunyuanvideo-vae", "fp16", [(1, 720, 1280, 61)], "use_tiling"),
    ("ltx-vae", "bf16", [(1, 512, 768, 121), (2, 256, 384, 17)], None),
    ("ltx-vae", "fp32", [(1, 512, 768, 1)], None),
    ("ltx-vae", "bf16", [(1, 704, 1216, 97)], "use_tiling"),
]
# component, dtype, (batch, tokens)
TEXT_CASES: list[tuple[str, str, list[tuple[int, int]]]] = [
    ("t5-xxl", "bf16", [(1, 512), (4, 512), (2, 226)]),
    ("t5-xxl", "fp32", [(4, 77)]),
    ("mt5-xl", "fp16", [(2, 256), (32, 256)]),
    ("umt5-xxl", "bf16", [(1, 512), (8, 512)]),
    ("clip-l", "bf16", [(4, 77)]),
    ("openclip-bigg", "fp16", [(32, 77)]),
    ("hunyuandit-bert", "fp32", [(4, 77)]),
    ("hunyuandit-bert", "fp16", [(64, 77)]),
    ("clip-vit-h", "fp16", [(1, 257), (8, 257)]),
    ("clip-vit-h", "fp32", [(2, 257)]),
    ("llama-3-8b", "fp16", [(1, 256), (4, 256)]),
    ("llama-3-8b", "bf16", [(16, 128)]),
]


def sdpa(query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, **options: Any) -> Any:
    """The kernels that a GPU runs: flash attention without a mask, efficient attention with one."""
    causal, scale = options.get("is_causal", False), options.get("scale")
    if attn_mask is None:
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        return flash(query, key, value, dropout_p, causal, False, scale=scale)[0]
    if attn_mask.dtype == torch.bool:
        attn_mask = torch.empty(attn_mask.shape, dtype=query.dtype)
    attn_mask = attn_mask.expand(*query.shape[:3], key.shape[2])
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    return efficient(query, key, value, attn_mask, True, dropout_p, causal, scale=scale)[0]


class Tracker(TorchDispatchMode):  # type: ignore[misc, unused-ignore]
    """Live bytes, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.seen: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def add(self, tensor: Any) -> None:
        if not isinstance(tensor, torch.Tensor) or tensor.untyped_storage() in self.seen:
            return
        storage = tensor.untyped_storage()
        nbytes = -(-storage.nbytes() // 512) * 512
        self.seen[storage] = nbytes
        self.live += nbytes
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self.drop, nbytes)

    def drop(self, nbytes: int) -> None:
        self.live -= nbytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            self.add(tensor)
        return result


def build(component: str) -> Any:
    """The real module, without memory."""
    name, config, stride = COMPONENTS[component]
    with torch.device("meta"):
        if stride is not None:
            return getattr(import_module("diffusers"), name)(**config)
        cls = getattr(import_module("transformers"), name)
        return cls(cls.config_class(**config))


def load(module: Any, dtype: torch.dtype) -> None:
    """Give every parameter and buffer fake memory; what is tied stays tied."""
    loaded: dict[int, Any] = {}
    for part in module.modules():
        for name, tensor in part._parameters.items():
            if tensor is not None:
                new = torch.nn.Parameter(torch.empty(tensor.shape, dtype=dtype), requires_grad=False)
                part._parameters[name] = loaded.setdefault(id(tensor), new)
        for name, tensor in part._buffers.items():
            if tensor is not None:
                part._buffers[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
    module.eval()


def run(module: Any, row: dict[str, Any]) -> None:
    """One pass; what it returns is dropped."""
    stride, dtype, batch = COMPONENTS[row["component"]][2], DTYPES[row["dtype"]], row["batch"]
    if row["component"] == "clip-vit-h":
        module(pixel_values=torch.empty(batch, 3, 224, 224, dtype=dtype), output_hidden_states=True)
        return
    if row["component"] == "llama-3-8b":
        ids = torch.zeros(batch, row["tokens"] + LLAMA_TEMPLATE, dtype=torch.long)
        module(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
        return
    if stride is None:
        ids = torch.zeros(batch, row["tokens"], dtype=torch.long)
        # pipelines call CLIP without a mask
        masks = {} if "clip" in row["component"] else {"attention_mask": torch.ones(batch, row["tokens"], dtype=torch.long)}
        module(input_ids=ids, **masks)
        return
    frames, pixels, channels = stride
    size: tuple[int, ...] = (row["height"], row["width"])
    if row["pass"] == "decode":
        size = tuple(n // pixels for n in size)
    if frames > 1:
        size = ((row["frames"] - 1) // frames + 1 if row["pass"] == "decode" else row["frames"], *size)
    if row["pass"] == "encode":
        module.encode(torch.empty((batch, 3, *size), dtype=dtype)).latent_dist.sample()
    else:
        module.decode(torch.empty((batch, channels, *size), dtype=dtype))


def trace(row: dict[str, Any]) -> dict[str, Any]:
    """`row` with what was measured."""
    module = build(row["component"])
    parameters = sum(p.numel() for p in module.parameters())
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        load(module, DTYPES[row["dtype"]])
        for option in ("use_tiling", "use_slicing"):
            if row.get(option):
                setattr(module, option, True)
        tracker = Tracker()
        for tensor in [*module.parameters(), *module.buffers()]:
            tracker.add(tensor)
        weights = tracker.live
        with tracker:
            run(module, row)
    measured = {"parameters": parameters, "weights_gib": round(weights / 2**30, 6), "peak_gib": round(tracker.peak / 2**30, 6)}
    versions = {name: import_module(name).__version__ for name in ("diffusers", "transformers", "torch")}
    return {**row, **measured, "versions": versions}


def cases() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for component, dtype, shapes, option in VAE_CASES:
        for batch, height, width, frames in shapes:
            size = {"batch": batch, "height": height, "width": width, "frames": frames, "dtype": dtype}
            options = {option: True} if option else {}
            rows.extend({"component": component, "pass": name, **size, **options} for name in ("encode", "decode"))
    for component, dtype, prompts in TEXT_CASES:
        rows.extend({"component": component, "pass": "encode", "batch": b, "tokens": n, "dtype": dtype} for b, n in prompts)
    return [{"id": f"component-{number:03d}", **row} for number, row in enumerate(rows, 1)]


if __name__ == "__main__":
    F.scaled_dot_product_attention = sdpa
    for case in cases():
        print(json.dumps(trace(case)), flush=True)
