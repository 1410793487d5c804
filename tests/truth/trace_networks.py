"""The networks that the tracers of parallel steps run, on fake tensors, and the tracker that counts their bytes.

Needs torch, diffusers and peft. A case is a row of parallel.jsonl without its figures.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import diffusers
import torch
import torch.nn.functional as F  # noqa: N812
from peft import LoraConfig, inject_adapter_in_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.checkpoint import checkpoint

Case = dict[str, Any]
Step = Callable[[Any, Any], Any]
Built = tuple[Callable[[], Any], Step, int]

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
BLOCKS = ("blocks", "transformer_blocks", "single_transformer_blocks")

_WAN = {"patch_size": (1, 2, 2), "attention_head_dim": 128, "in_channels": 16, "out_channels": 16, "text_dim": 4096}
_WAN |= {"freq_dim": 256, "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads"}
WAN = {
    "wan2.1-t2v-1.3b": {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
    "wan2.2-t2v-a14b": {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40},
    "wan2.2-ti2v-5b": {"num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 30, "in_channels": 48, "out_channels": 48},
}
_HYDIT: Case = {"in_channels": 4, "patch_size": 2, "sample_size": 128, "learn_sigma": True, "cross_attention_dim": 1024}
_HYDIT |= {"cross_attention_dim_t5": 2048, "pooled_projection_dim": 1024, "text_len": 77, "text_len_t5": 256}
_HYDIT |= {"use_style_cond_and_image_meta_size": False, "activation_fn": "gelu-approximate", "norm_type": "layer_norm"}
_HYDIT |= {"num_attention_heads": 16}
HYDIT = {
    "hunyuandit-g2": {"hidden_size": 1408, "num_layers": 40, "attention_head_dim": 88, "mlp_ratio": 4.3637},
    "hunyuandit-xl2": {"hidden_size": 1152, "num_layers": 28, "attention_head_dim": 72, "mlp_ratio": 4.0},
}
_SD3 = {"sample_size": 128, "patch_size": 2, "in_channels": 16, "num_layers": 24, "attention_head_dim": 64, "out_channels": 16}
_SD3 |= {"num_attention_heads": 24, "joint_attention_dim": 4096, "caption_projection_dim": 1536}
_SD3 |= {"pooled_projection_dim": 2048, "pos_embed_max_size": 192}


def sdpa(query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, **more: Any) -> Any:
    """The kernels that a GPU runs: flash attention without a mask, efficient attention with one."""
    aten, given = torch.ops.aten, (query, key, value)
    if attn_mask is None:
        return aten._scaled_dot_product_flash_attention(*given, dropout_p, False, False, scale=more.get("scale"))[0]
    if attn_mask.dtype == torch.bool:
        attn_mask = torch.empty(attn_mask.shape, dtype=query.dtype)
    mask = attn_mask.expand(*query.shape[:3], key.shape[2])
    return aten._scaled_dot_product_efficient_attention(*given, mask, True, dropout_p, False, scale=more.get("scale"))[0]


def _raised(x: Any) -> Any:
    low = isinstance(x, torch.Tensor) and x.dtype in (torch.bfloat16, torch.float16)
    return x.float() if low and torch.is_autocast_enabled("cpu") else x


def _in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """CUDA's autocast runs these in float32, the CPU's does not."""
    return lambda x, groups, weight=None, bias=None, eps=1e-5: function(_raised(x), groups, _raised(weight), _raised(bias), eps)


F.scaled_dot_product_attention = sdpa
F.layer_norm, F.group_norm = _in_float32(F.layer_norm), _in_float32(F.group_norm)


def e(*shape: int, dtype: Any = torch.bfloat16) -> Any:
    return torch.empty(*shape, dtype=dtype)


def ones(*shape: int, dtype: Any = torch.long) -> Any:
    return torch.ones(*shape, dtype=dtype)


def loss(out: Any) -> Any:
    return F.mse_loss(out.float(), e(*out.shape, dtype=torch.float32))


def wan(c: Case) -> Built:
    dims: Case = {**_WAN, **WAN[c["model"]], **c.get("dims", {})}
    stride, b, text = 16 if "5b" in c["model"] else 8, c["batch"], c.get("text_tokens", 512)
    frames, h, w = (c["frames"] - 1) // 4 + 1, c["height"] // stride, c["width"] // stride

    def step(m: Any, dt: Any) -> Any:
        latents = e(b, dims["in_channels"], frames, h, w, dtype=dt)
        return loss(m(latents, ones(b), e(b, text, 4096, dtype=dt), return_dict=False)[0])

    return lambda: diffusers.WanTransformer3DModel(**dims), step, frames * (h // 2) * (w // 2)


def hydit(c: Case) -> Built:
    dims: Case = {**_HYDIT, **HYDIT[c["model"]]}
    b, h, w = c["batch"], c["height"] // 8, c["width"] // 8
    rotary = ((h // 2) * (w // 2), dims["attention_head_dim"])

    def step(m: Any, dt: Any) -> Any:
        out = m(
            e(b, 4, h, w, dtype=dt),
            timestep=ones(b),
            encoder_hidden_states=e(b, 77, 1024, dtype=dt),
            text_embedding_mask=ones(b, 77),
            encoder_hidden_states_t5=e(b, 256, 2048, dtype=dt),
            text_embedding_mask_t5=ones(b, 256),
            image_rotary_emb=(e(*rotary, dtype=torch.float32), e(*rotary, dtype=torch.float32)),
            return_dict=False,
        )[0]
        return loss(out[:, :4])

    return lambda: diffusers.HunyuanDiT2DModel(**dims), step, rotary[0]


def ltx(c: Case) -> Built:
    b, text = c["batch"], c.get("text_tokens", 128)
    frames, h, w = (c["frames"] - 1) // 8 + 1, c["height"] // 32, c["width"] // 32
    size, n = {"num_frames": frames, "height": h, "width": w}, frames * h * w

    def step(m: Any, dt: Any) -> Any:
        mask = ones(b, text, dtype=torch.bool)
        return loss(m(e(b, n, 128, dtype=dt), e(b, text, 4096, dtype=dt), ones(b), mask, **size, return_dict=False)[0])

    return diffusers.LTXVideoTransformer3DModel, step, n


def flux(c: Case) -> Built:
    b, n, text = c["batch"], c["height"] // 16 * (c["width"] // 16), c.get("text_tokens", 512)

    def step(m: Any, dt: Any) -> Any:
        ids = (e(n, 3, dtype=dt), e(text, 3, dtype=dt), e(b, dtype=torch.float32))
        given = (e(b, n, 64, dtype=dt), e(b, text, 4096, dtype=dt), e(b, 768, dtype=dt), e(b, dtype=dt))
        return loss(m(*given, *ids, return_dict=False)[0])

    return lambda: diffusers.FluxTransformer2DModel(guidance_embeds=True), step, n


def sd3(c: Case) -> Built:
    b, h, w, text = c["batch"], c["height"] // 8, c["width"] // 8, c.get("text_tokens", 333)

    def step(m: Any, dt: Any) -> Any:
        given = (e(b, 16, h, w, dtype=dt), e(b, text, 4096, dtype=dt), e(b, 2048, dtype=dt), ones(b))
        return loss(m(*given, return_dict=False)[0])

    return lambda: diffusers.SD3Transformer2DModel(**_SD3), step, (h // 2) * (w // 2)


def hunyuanvideo(c: Case) -> Built:
    b, text = c["batch"], c.get("text_tokens", 256)
    frames, h, w = (c["frames"] - 1) // 4 + 1, c["height"] // 8, c["width"] // 8

    def step(m: Any, dt: Any) -> Any:
        mask = ones(b, text, dtype=torch.bool)
        given = (e(b, 16, frames, h, w, dtype=dt), ones(b), e(b, text, 4096, dtype=dt), mask, e(b, 768, dtype=dt))
        return loss(m(*given, guidance=e(b, dtype=dt), return_dict=False)[0])

    return diffusers.HunyuanVideoTransformer3DModel, step, frames * (h // 2) * (w // 2)


def qwen(c: Case) -> Built:
    b, h, w, text = c["batch"], c["height"] // 16, c["width"] // 16, c.get("text_tokens", 512)

    def step(m: Any, dt: Any) -> Any:
        given = (e(b, h * w, 64, dtype=dt), e(b, text, 3584, dtype=dt), ones(b, text, dtype=torch.bool), e(b, dtype=dt))
        return loss(m(*given, [(1, h, w)] * b, return_dict=False)[0])

    return diffusers.QwenImageTransformer2DModel, step, h * w


FAMILIES = {"wan": wan, "hunyuandit": hydit, "ltx-2b": ltx, "flux": flux, "sd3": sd3, "hunyuanvideo": hunyuanvideo}
FAMILIES |= {"qwen-image": qwen}


def prepare(c: Case, families: Mapping[str, Callable[[Case], Built]] = FAMILIES) -> tuple[Any, Step, int]:
    """The network on the meta device, adapters and checkpoints in place; one step's loss; the tokens of a sample."""
    build, step, tokens = next(make for name, make in families.items() if c["model"].startswith(name))(c)
    with torch.device("meta"):
        network = build()
        adapt(network, c)
    return network, step, tokens


def adapt(network: Any, c: Case) -> None:
    """LoRA and gradient checkpointing as the case has them."""
    if c["task"] == "lora":
        network.requires_grad_(False)
        config = LoraConfig(r=c["rank"], lora_alpha=c["rank"], target_modules=c.get("targets", TARGETS))
        inject_adapter_in_model(config, network)
    if c.get("checkpointing") and c["model"].startswith("hunyuandit"):
        for block in network.blocks:
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    elif c.get("checkpointing"):
        network.enable_gradient_checkpointing()


def fake(network: Any, base: Any, trained: Any = None) -> None:
    """Fake tensors for the network's own, in `base`, or `trained` where they train."""
    for module in network.modules():
        for name, p in list(module._parameters.items()):
            if p is not None:
                dtype = ((trained or base) if p.requires_grad else base) if p.dtype.is_floating_point else p.dtype
                module._parameters[name] = torch.nn.Parameter(torch.empty(p.shape, dtype=dtype), requires_grad=p.requires_grad)
        for name, b in list(module._buffers.items()):
            if b is not None:
                module._buffers[name] = torch.empty(b.shape, dtype=b.dtype)
    network.train()


def tensors(network: Any) -> list[Any]:
    return [*network.parameters(), *network.buffers()]


def up(nbytes: int) -> int:
    """The caching allocator's blocks of 512 bytes."""
    return -(-nbytes // 512) * 512


class Tracker(TorchDispatchMode):  # type: ignore[misc]  # torch is not typed here
    """Live bytes of storages from the operator that makes them until Python drops them, and their peak under each mark.

    FSDP frees and fills storages by resizing them, which `resize` follows.
    """

    current: Tracker | None = None

    def __init__(self) -> None:
        super().__init__()
        self.live, self.mark, self.peaks = 0, "", dict[str, int]()
        self.sizes: Any = weakref.WeakKeyDictionary()
        Tracker.current = self

    def add(self, x: Any) -> None:
        if not isinstance(x, torch.Tensor) or x.device.type != "cpu":
            return
        storage = getattr(x, "_local_tensor", x).untyped_storage()
        if storage not in self.sizes:
            size = [up(storage.nbytes())]
            self.sizes[storage] = size
            self.grow(size[0])
            weakref.finalize(storage, lambda: self.grow(-size[0]))

    def grow(self, nbytes: int) -> None:
        self.live += nbytes
        self.peaks[self.mark] = max(self.peaks.get(self.mark, 0), self.live)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for x in tree_iter(result):
            self.add(x)
        return result


_resize = torch.UntypedStorage.resize_


def resize(storage: Any, nbytes: int) -> Any:
    result, tracker = _resize(storage, nbytes), Tracker.current
    if tracker is not None and storage in tracker.sizes:
        size = tracker.sizes[storage]
        size[0], before = up(nbytes), size[0]
        tracker.grow(size[0] - before)
    return result


torch.UntypedStorage.resize_ = resize
