"""Count the real networks' operations without a GPU: `python tests/truth/trace_flops.py [DIFFSR] > tests/truth/flops.jsonl`.

Needs torch, diffusers, peft and neuraloperator; DIFFSR is the folder of that project's sources, and its networks need einops
and tqdm. Each case of traces.jsonl runs one forward and one backward pass on fake tensors below torch's own
FlopCounterMode. What is counted depends on shapes and on what trains, never on dtypes, so everything runs in one.
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import torch.nn.functional as F  # noqa: N812
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

Case = dict[str, Any]
Built = tuple[Callable[[], Any], Callable[[Any], Any]]

_WAN = {"patch_size": (1, 2, 2), "attention_head_dim": 128, "text_dim": 4096, "freq_dim": 256, "cross_attn_norm": True}
_WAN_A14B = {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40}
WAN = {
    "wan2.1-t2v-1.3b": {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
    "wan2.2-t2v-a14b": _WAN_A14B,
    "wan2.2-i2v-a14b": {**_WAN_A14B, "in_channels": 36},
    "wan2.2-ti2v-5b": {"num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 30, "in_channels": 48, "out_channels": 48},
}
_HYDIT = {"in_channels": 4, "patch_size": 2, "learn_sigma": True, "cross_attention_dim": 1024, "cross_attention_dim_t5": 2048}
_HYDIT |= {"pooled_projection_dim": 1024, "text_len": 77, "text_len_t5": 256, "num_attention_heads": 16, "sample_size": 128}
HYDIT = {
    "hunyuandit-g2": {"hidden_size": 1408, "num_layers": 40, "attention_head_dim": 88, "mlp_ratio": 4.3637},
    "hunyuandit-xl2": {"hidden_size": 1152, "num_layers": 28, "attention_head_dim": 72, "mlp_ratio": 4.0},
}
COG = {
    "cogvideox-2b": {},
    "cogvideox-5b": {"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True},
}
SD3 = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
}
SD3 |= {"joint_attention_dim": 4096, "caption_projection_dim": 1536, "pooled_projection_dim": 2048, "out_channels": 16}
DIFFSR = {
    "FNO2d": ("models.fno.fourier2d", "FNO2d"),
    "UNet2d": ("models.unet.unet2d", "UNet2d"),
    "EDSR": ("models.EDSR.EDSR", "EDSR_net"),
    "SwinIR": ("models.swinIR.SwinIR", "SwinIR_net"),
    "Galerkin_Transformer": ("models.galerkin.Galerkin_Transformer", "Galerkin_Transformer"),
    "MWT2d": ("models.MWT.MWT", "MWT_SuperResolution"),
    "HiNOTE": ("models.HiNOTE.HiNOTE", "HiNOTE_net"),
    "M2NO2d": ("models.m2no.m2no2d", "M2NO2d"),
}


def sdpa(query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False, **_: Any) -> Any:
    """The kernels that a GPU runs: flash attention without a mask, efficient attention with one."""
    aten, given = torch.ops.aten, (query, key, value)
    if attn_mask is None:
        return aten._scaled_dot_product_flash_attention(*given, dropout_p, is_causal)[0]
    mask = torch.empty(*query.shape[:3], key.shape[2], dtype=query.dtype)
    return aten._scaled_dot_product_efficient_attention(*given, mask, True, dropout_p, is_causal)[0]


F.scaled_dot_product_attention = sdpa


def e(*shape: int) -> Any:
    return torch.empty(*shape, dtype=torch.bfloat16)


def ones(*shape: int) -> Any:
    return torch.ones(*shape, dtype=torch.long)


def wan(c: Case) -> Built:
    b = c["batch"]
    dims: Case = {**_WAN, "in_channels": 16, "out_channels": 16, "qk_norm": "rms_norm_across_heads", **WAN[c["model"]]}
    stride = 16 if "5b" in c["model"] else 8
    latents = (b, dims["in_channels"], (c["frames"] - 1) // 4 + 1, c["height"] // stride, c["width"] // stride)
    text = c.get("text_tokens", 512)
    return (
        lambda: diffusers.WanTransformer3DModel(**dims),
        lambda m: m(e(*latents), ones(b), e(b, text, 4096), return_dict=False)[0],
    )


def hydit(c: Case) -> Built:
    old, b = c.get("version", "1.2") != "1.2", c["batch"]
    dims = {**_HYDIT, **HYDIT[c["model"]], "use_style_cond_and_image_meta_size": old}
    dims |= {"activation_fn": "gelu-approximate", "norm_type": "layer_norm"}
    h, w = c["height"] // 8, c["width"] // 8
    rotary = (h // 2 * (w // 2), dims["attention_head_dim"])

    def run(m: Any) -> Any:
        return m(
            e(b, 4, h, w),
            timestep=ones(b),
            encoder_hidden_states=e(b, 77, 1024),
            text_embedding_mask=ones(b, 77),
            encoder_hidden_states_t5=e(b, 256, 2048),
            text_embedding_mask_t5=ones(b, 256),
            image_meta_size=torch.ones(b, 6) if old else None,
            style=torch.zeros(b, dtype=torch.long) if old else None,
            image_rotary_emb=(e(*rotary), e(*rotary)),
            return_dict=False,
        )[0]

    return lambda: diffusers.HunyuanDiT2DModel(**dims), run


def hunyuanvideo(c: Case) -> Built:
    b, latents, text = c["batch"], _latents(c), c.get("text_tokens", 256)

    def run(m: Any) -> Any:
        mask = torch.ones(b, text, dtype=torch.bool)
        return m(e(b, 16, *latents), ones(b), e(b, text, 4096), mask, e(b, 768), guidance=e(b), return_dict=False)[0]

    return diffusers.HunyuanVideoTransformer3DModel, run


def cogvideox(c: Case) -> Built:
    b, (frames, h, w) = c["batch"], _latents(c)

    def run(m: Any) -> Any:
        tokens = frames * (h // 2) * (w // 2)
        rotary = (e(tokens, 64), e(tokens, 64)) if c["model"] == "cogvideox-5b" else None
        return m(e(b, frames, 16, h, w), e(b, 226, 4096), ones(b), image_rotary_emb=rotary, return_dict=False)[0]

    return lambda: diffusers.CogVideoXTransformer3DModel(**COG[c["model"]]), run


def ltx(c: Case) -> Built:
    b, text = c["batch"], c.get("text_tokens", 128)
    frames, h, w = (c["frames"] - 1) // 8 + 1, c["height"] // 32, c["width"] // 32

    def run(m: Any) -> Any:
        mask, size = torch.ones(b, text, dtype=torch.bool), {"num_frames": frames, "height": h, "width": w}
        return m(e(b, frames * h * w, 128), e(b, text, 4096), ones(b), mask, **size, return_dict=False)[0]

    return diffusers.LTXVideoTransformer3DModel, run


def flux(c: Case) -> Built:
    b, tokens, text = c["batch"], c["height"] // 16 * (c["width"] // 16), c.get("text_tokens", 512)

    def run(m: Any) -> Any:
        given = (e(b, tokens, 64), e(b, text, 4096), e(b, 768), e(b), e(tokens, 3), e(text, 3), e(b))
        return m(*given, return_dict=False)[0]

    return lambda: diffusers.FluxTransformer2DModel(guidance_embeds=True), run


def sd3(c: Case) -> Built:
    b, h, w, text = c["batch"], c["height"] // 8, c["width"] // 8, c.get("text_tokens", 333)
    return (
        lambda: diffusers.SD3Transformer2DModel(**SD3, pos_embed_max_size=192),
        lambda m: m(e(b, 16, h, w), e(b, text, 4096), e(b, 2048), ones(b), return_dict=False)[0],
    )


def unet(c: Case) -> Built:
    arch, b = dict(c["arch"]), c["batch"]
    return (
        lambda: diffusers.UNet2DModel(**arch),
        lambda m: m(e(b, arch["in_channels"], c["height"], c["width"]), ones(b), return_dict=False)[0],
    )


def fno(c: Case) -> Built:
    from neuralop.models import FNO

    arch, b = dict(c["arch"]), c["batch"]
    return lambda: FNO(**arch), lambda m: m(torch.empty(b, arch["in_channels"], c["height"], c["width"]))


def diffsr(c: Case) -> Built:
    dims, factor, b = dict(c["model"]), c["sample_factor"], c["batch"]
    h, w = (n // factor for n in c["shape"])
    module = importlib.import_module(DIFFSR[dims["name"]][0])
    if hasattr(module, "unified_pos_embedding"):
        module.unified_pos_embedding = functools.partial(module.unified_pos_embedding, device="cpu")  # type: ignore[attr-defined]
    channels = next(dims[name] for name in ("in_channels", "in_dim") if name in dims)

    def make() -> Any:
        made = getattr(module, DIFFSR[dims["name"]][1])(dims)
        if hasattr(made, "_build_layers"):
            made.cached_input_resolution, made.cached_layers = (h, w), made._build_layers((h, w))
        return made

    return make, lambda m: m(torch.empty(b, h, w, channels))


FAMILIES = {"wan": wan, "hunyuandit": hydit, "hunyuanvideo": hunyuanvideo, "cogvideox": cogvideox, "ltx": ltx, "flux": flux}
FAMILIES |= {"sd3": sd3, "unet": unet, "fno": fno}


def _latents(c: Case) -> tuple[int, int, int]:
    return (c["frames"] - 1) // 4 + 1, c["height"] // 8, c["width"] // 8


def count(c: Case) -> Case:
    """The operations of one forward pass, and of the backward pass with what it runs again."""
    ours = isinstance(c["model"], str)
    make, run = next(make for name, make in FAMILIES.items() if c["model"].startswith(name))(c) if ours else diffsr(c)
    plain = not ours or c["model"] == "fno"
    with torch.device("meta" if ours else "cpu"):
        network = make()
    if c.get("task") == "lora":
        from peft import LoraConfig, inject_adapter_in_model

        targets = c.get("targets", ["to_q", "to_k", "to_v", "to_out.0"])
        network.requires_grad_(False)
        inject_adapter_in_model(LoraConfig(r=c["rank"], lora_alpha=c["rank"], target_modules=targets), network)
    if c.get("checkpointing") and c["model"].startswith("hunyuandit"):
        for block in network.blocks:
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    elif c.get("checkpointing"):
        network.enable_gradient_checkpointing()
    network.train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        _fake(network, None if plain else torch.bfloat16)
        with FlopCounterMode(display=False) as forward:
            out = run(network)
        with FlopCounterMode(display=False) as backward:
            out.float().sum().backward()
    return {"id": c["id"], "forward": forward.get_total_flops(), "backward": backward.get_total_flops()}


def _fake(network: Any, dtype: Any) -> None:
    for module in network.modules():
        for name, p in list(module._parameters.items()):
            if p is not None:
                kind = dtype if dtype is not None and p.dtype.is_floating_point else p.dtype
                module._parameters[name] = torch.nn.Parameter(torch.empty(p.shape, dtype=kind), requires_grad=p.requires_grad)
        for name, b in list(module._buffers.items()):
            if b is not None:
                kind = dtype if dtype is not None and b.dtype.is_floating_point else b.dtype
                module._buffers[name] = torch.empty(b.shape, dtype=kind)


class _Absent(types.ModuleType):
    """A package that DiffSR's networks import and that counting does not need."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def _prepare(folder: str) -> None:
    sys.path.insert(0, folder)
    models = types.ModuleType("models")
    models.__path__ = [f"{folder}/models"]
    sys.modules["models"] = models  # past its __init__, which imports every network there is
    for name in ("cv2", "torchvision", "torchvision.transforms", "torchvision.transforms.functional", "tltorch", "loguru"):
        sys.modules.setdefault(name, _Absent(name))
    layers = types.ModuleType("timm.models.layers")  # timm itself needs torchvision
    layers.trunc_normal_ = lambda tensor, **_: tensor  # type: ignore[attr-defined]
    sys.modules |= {"timm": _Absent("timm"), "timm.models": _Absent("timm.models"), "timm.models.layers": layers}
    torch.Tensor.cuda = lambda self, *_, **__: self


def main() -> None:
    lines = (Path(__file__).parent / "traces.jsonl").read_text(encoding="utf-8").splitlines()
    cases = [json.loads(line) for line in lines]
    for case in cases:
        if isinstance(case["model"], str):
            print(json.dumps(count(case)), flush=True)
    for folder in sys.argv[1:]:
        _prepare(folder)  # afterwards: diffusers would find the packages that are not there
        for case in cases:
            if not isinstance(case["model"], str) and case["model"]["name"] in DIFFSR:
                print(json.dumps(count(case)), flush=True)


if __name__ == "__main__":
    main()
