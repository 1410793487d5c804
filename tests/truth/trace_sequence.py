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
from diffusers.models.embeddings import apply_rotary_emb
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
    exec("from __future__ import annotations\n" + source.replace(mark, f"{line}\n    {mark}"), names)
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
    """diffusers' own hooks and attention; `backend`: native, or _native_flash, as a ring needs the log-sum-exp."""
    network.set_attention_backend(backend)
    torch.accelerator.device_count = lambda: 1  # it wants to name a device
    mesh = init_device_mesh("cpu", (ring, ulysses), mesh_dim_names=("ring", "ulysses"))
    network.enable_parallelism(config=ContextParallelConfig(ring_degree=ring, ulysses_degree=ulysses, mesh=mesh))


class FastVideoProcessor:
    """HunyuanVideoAttnProcessor2_0 whose video and text never are one sequence, but in the single blocks' projections."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks

    def __call__(
        self, attn: Any, hidden_states: Any, encoder_hidden_states: Any, attention_mask: Any, image_rotary_emb: Any
    ) -> Any:
        hidden, context = hidden_states, encoder_hidden_states
        single, own, texts = attn.add_q_proj is None, hidden.shape[1], context.shape[1]
        if single:
            hidden = torch.cat([hidden, context], dim=1)
        video = [to(hidden).unflatten(2, (attn.heads, -1)) for to in (attn.to_q, attn.to_k, attn.to_v)]
        video[0], video[1] = attn.norm_q(video[0]), attn.norm_k(video[1])
        if single:
            text = [x[:, -texts:] for x in video]
            video = [x[:, :own] for x in video]
        else:
            text = [to(context).unflatten(2, (attn.heads, -1)) for to in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)]
            text[0], text[1] = attn.norm_added_q(text[0]), attn.norm_added_k(text[1])
        video[0], video[1] = (apply_rotary_emb(x, image_rotary_emb, sequence_dim=1) for x in video[:2])
        hidden, context = (x.flatten(2, 3).to(video[0].dtype) for x in self.attend(video, text, attention_mask))
        return (hidden, context) if single else (attn.to_out[0](hidden), attn.to_add_out(context))

    def attend(self, video: Any, text: Any, mask: Any) -> Any:
        """DistributedAttention.forward."""
        ranks, tokens, heads = self.ranks, video[0].shape[1], video[0].shape[2]
        together = torch.cat(video)
        together = AllToAll.apply(together, 2, 1, ranks)
        replicated = torch.cat(text)[:, :, : heads // ranks]
        together = torch.cat([together, replicated], dim=1)
        query, key, value = together.chunk(3)
        out = hunyuan_module.dispatch_attention_fn(query, key, value, attn_mask=mask, dropout_p=0.0, is_causal=False)
        seen, said = out[:, : tokens * ranks], out[:, tokens * ranks :]
        said = Gather.apply(said.contiguous(), 2, ranks)
        return AllToAll.apply(seen, 1, 2, ranks), said


def fastvideo(network: Any, ranks: int) -> None:
    """HunyuanVideo: the image's tokens cut, the text whole; in attention all of the image and the text, of a part of the heads."""
    for block in (*network.transformer_blocks, *network.single_transformer_blocks):
        block.attn.processor = FastVideoProcessor(ranks)
    network.proj_out.register_forward_hook(lambda _module, _inputs, out: Gather.apply(out, 1, ranks))
    cut = f"hidden_states = hidden_states.chunk({ranks}, 1)[0]; self.own = hidden_states.shape[1]; "
    cut += f"image_rotary_emb = tuple(part.chunk({ranks}, 0)[0] for part in image_rotary_emb)"
    _rewritten(network, hunyuan_module, "# 4. Transformer blocks", cut)
