"""Ways to share a sample's tokens between GPUs, put around the real networks of diffusers for trace_parallel.py.

`yunchang`: Wan's blocks with that package's all_to_all_4D (comm/all_to_all.py) around self-attention, tokens cut by torch.chunk.
`diffusers`: its own enable_parallelism with the network's _cp_plan, keys and values in a ring, heads exchanged, or both.
`fastvideo`: its DistributedAttention (fastvideo/attention/layer.py) in HunyuanVideo: the text whole on every rank.
"""

from __future__ import annotations

import inspect
import textwrap
import types
from typing import Any

import diffusers.models.transformers.transformer_hunyuan_video as hunyuan_module
import diffusers.models.transformers.transformer_wan as wan_module
import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig
from torch.distributed.device_mesh import init_device_mesh


class AllToAll(torch.autograd.Function):  # type: ignore[misc]  # torch is not typed here
    """SeqAllToAll4D: (B, tokens, heads, width), one dimension scattered and another gathered."""

    @staticmethod
    def forward(ctx: Any, x: Any, scattered: int, gathered: int, ranks: int) -> Any:
        ctx.options = (gathered, scattered, ranks)
        return _all_to_all(x, scattered, gathered, ranks)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return AllToAll.apply(grad, *ctx.options), None, None, None


def _all_to_all(x: Any, scattered: int, gathered: int, ranks: int) -> Any:
    b, tokens, heads, width = x.shape
    if (scattered, gathered) == (2, 1):
        sent = x.reshape(b, tokens, ranks, heads // ranks, width).transpose(0, 2).contiguous()
        out = torch.empty_like(sent)
        dist.all_to_all_single(out, sent)
        out = out.reshape(tokens * ranks, b, heads // ranks, width)
        return out.transpose(0, 1).contiguous().reshape(b, tokens * ranks, heads // ranks, width)
    part = tokens // ranks
    sent = x.reshape(b, ranks, part, heads, width).transpose(0, 3).transpose(0, 1).contiguous()
    sent = sent.reshape(ranks, heads, part, b, width)
    out = torch.empty_like(sent)
    dist.all_to_all_single(out, sent)
    out = out.reshape(ranks * heads, part, b, width)
    return out.transpose(0, 2).contiguous().reshape(b, part, ranks * heads, width)


class Gather(torch.autograd.Function):  # type: ignore[misc]
    """What all ranks have of a dimension, side by side."""

    @staticmethod
    def forward(ctx: Any, x: Any, dim: int, ranks: int) -> Any:
        ctx.options = (dim, ranks)
        out = torch.empty(ranks * x.shape[0], *x.shape[1:], dtype=x.dtype)
        dist.all_gather_into_tensor(out, x.contiguous())
        return torch.cat(out.chunk(ranks), dim)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        dim, ranks = ctx.options
        return grad.chunk(ranks, dim)[0], None, None


def _rewritten(network: Any, module: Any, mark: str, line: str) -> None:
    """The network's own forward pass with one line more where the loop over its blocks begins."""
    source = textwrap.dedent(inspect.getsource(type(network).forward))
    source = source[source.index("def forward") :]
    assert mark in source
    names = dict(vars(module))
    exec("from __future__ import annotations\n" + source.replace(mark, f"{line}\n    {mark}"), names)  # noqa: S102
    network.forward = types.MethodType(names["forward"], network)


def yunchang(network: Any, ranks: int) -> None:
    """Wan as in wan/distributed/ulysses.py and VideoX-Fun: self-attention over all tokens of a part of the heads."""
    plain = wan_module.dispatch_attention_fn

    def attend(query: Any, key: Any, value: Any, **options: Any) -> Any:
        if key.shape[1] != network.own:
            return plain(query, key, value, **options)
        query, key, value = (AllToAll.apply(x, 2, 1, ranks) for x in (query, key, value))
        return AllToAll.apply(plain(query, key, value, **options), 1, 2, ranks)

    wan_module.dispatch_attention_fn = attend
    rope = network.rope.forward
    network.rope.forward = lambda x: tuple(part.chunk(ranks, 1)[0] for part in rope(x))
    network.proj_out.register_forward_hook(lambda _module, _inputs, out: Gather.apply(out, 1, ranks))
    cut = f"hidden_states = hidden_states.chunk({ranks}, 1)[0]; self.own = hidden_states.shape[1]"
    _rewritten(network, wan_module, "# 4. Transformer blocks", cut)


def context_parallel(network: Any, ring: int, ulysses: int, backend: str) -> None:
    """diffusers' own hooks and attention; `backend`: native, or _native_flash, which alone gives the log-sum-exp that a ring needs."""
    network.set_attention_backend(backend)
    mesh = init_device_mesh("cpu", (ring, ulysses), mesh_dim_names=("ring", "ulysses"))
    network.enable_parallelism(config=ContextParallelConfig(ring_degree=ring, ulysses_degree=ulysses, mesh=mesh))


def fastvideo(network: Any, ranks: int) -> None:
    """HunyuanVideo: the image's tokens cut, the text whole; in attention all of the image and the text, of a part of the heads."""
    plain = hunyuan_module.dispatch_attention_fn

    def attend(query: Any, key: Any, value: Any, **options: Any) -> Any:
        own, heads = network.own, query.shape[2] // ranks
        image = torch.cat([x[:, :own] for x in (query, key, value)])
        image = AllToAll.apply(image, 2, 1, ranks)
        text = torch.cat([x[:, own:] for x in (query, key, value)])[:, :, :heads]
        out = plain(*torch.cat([image, text], 1).chunk(3), **options)
        image, text = out[:, : own * ranks], out[:, own * ranks :]
        text = Gather.apply(text.contiguous(), 2, ranks)
        return torch.cat([AllToAll.apply(image, 1, 2, ranks), text], 1)

    hunyuan_module.dispatch_attention_fn = attend
    network.proj_out.register_forward_hook(lambda _module, _inputs, out: Gather.apply(out, 1, ranks))
    cut = f"hidden_states = hidden_states.chunk({ranks}, 1)[0]; self.own = hidden_states.shape[1]; "
    cut += f"image_rotary_emb = tuple(part.chunk({ranks}, 0)[0] for part in image_rotary_emb)"
    _rewritten(network, hunyuan_module, "# 4. Transformer blocks", cut)
