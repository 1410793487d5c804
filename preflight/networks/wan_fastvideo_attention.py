"""The attentions of FastVideo's Wan: whole, causal, and the two that leave out most of it (see wan_fastvideo.py).

fastvideo/attention/layer.py and attention/backends (video_sparse_attn.py, sla.py); fastvideo-kernel/python/fastvideo_kernel.
"""

from __future__ import annotations

from collections.abc import Mapping

from preflight.networks.wan_musubi import WanRMSNorm
from preflight.tape.activation import keeps_result
from preflight.tape.attention import attention
from preflight.tape.autocast import upper
from preflight.tape.flops import multiplied
from preflight.tape.linear import matmul
from preflight.tape.meter import Size
from preflight.tape.module import Linear, Module
from preflight.tape.ratio import divide
from preflight.tape.shaping import assign, cat, chunk, exchange, narrow, pad, stack, sum_over, unbind
from preflight.tape.tensor import Call, Grads, Tensor

Tiles = tuple[Size, Size, Size]
TILE = 128  # causal_wanvideo.py: tokens are filled up to whole tiles of FlexAttention
CUBE = 4  # video_sparse_attn.py: VSA_TILE_SIZE is 4 x 4 x 4
QUERIES, KEYS = 128, 64  # sla.py: BLKQ and BLKK


class Projections(Module):
    """What both attentions of a block have; the self-attention's are the block's own there, names are as in diffusers."""

    def __init__(self, dim: int, heads: int) -> None:
        self.heads = heads
        self.to_q, self.to_k, self.to_v = Linear(dim, dim), Linear(dim, dim), Linear(dim, dim)
        self.to_out = [Linear(dim, dim)]
        self.norm_q, self.norm_k = WanRMSNorm(dim), WanRMSNorm(dim)


class CrossAttention(Projections):
    """WanT2VCrossAttention."""

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        query = _heads(self.norm_q(self.to_q(x)), self.heads)
        key = _heads(self.norm_k(self.to_k(context)), self.heads)
        value = _heads(self.to_v(context), self.heads)
        x = _attend(query, key, value)
        return self.to_out[0](_merged(x))


class SelfAttention(Projections):
    """Over all tokens, or `kept` percent of the pairs of them."""

    kept = 100

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, tiles: Tiles | None) -> tuple[Tensor, list[Tensor]]:
        """The result, and what the block's own variables hold until it ends."""
        query, key, value = self.to_q(x), self.to_k(x), self.to_v(x)
        gate = self.gate(x)
        query = self.norm_q(query)
        key = self.norm_k(key)
        query, key, value = (_heads(part, self.heads) for part in (query, key, value))
        parts = [query, key, value, *(_heads(part, self.heads) for part in gate)]
        attended = self.attend(parts, cos, sin, tiles)
        return self.to_out[0](_merged(attended)), parts

    def gate(self, x: Tensor) -> list[Tensor]:
        del x
        return []

    def attend(self, parts: list[Tensor], cos: Tensor, sin: Tensor, tiles: Tiles | None) -> Tensor:
        """attention/layer.py: DistributedAttention. All parts lie in one tensor, of which two are rotated in place."""
        (batch, tokens, heads, width), count = parts[0].shape, len(parts)
        ranks = parts[0].tape.sharing.ranks
        together = cat(parts, 0)
        if ranks > 1:
            together = exchange(together, count * batch, tokens * ranks, heads // ranks, width)
        both = (2 * batch, *together.shape[1:])
        assign(together, both, rotate(narrow(together, *both), cos, sin))
        together = self.arranged(together, tiles)
        out = self.kernel(chunk(together, count, 0))
        out = self.restored(out, tokens * ranks)
        out = pad(out, *out.shape)  # constant_pad_nd by nothing: a clone
        return exchange(out, batch, tokens, heads, width) if ranks > 1 else out

    def arranged(self, together: Tensor, tiles: Tiles | None) -> Tensor:
        """The backend's preprocess_qkv."""
        del tiles
        return together

    def kernel(self, parts: tuple[Tensor, ...]) -> Tensor:
        """The backend's forward."""
        return _attend(*parts)

    def restored(self, out: Tensor, tokens: Size) -> Tensor:
        """The backend's postprocess_output."""
        del tokens
        return out


class CausalSelfAttention(SelfAttention):
    """causal_wanvideo.py: CausalWanSelfAttention without a cache."""

    def attend(self, parts: list[Tensor], cos: Tensor, sin: Tensor, tiles: Tiles | None) -> Tensor:
        del tiles
        query, key, value = parts
        batch, tokens, heads, width = query.shape
        roped_query = rotate(query, cos, sin)
        roped_key = rotate(key, cos, sin)
        padded = -(-tokens // TILE) * TILE
        rest = query.tape.empty((batch, padded - tokens, heads, width), value.dtype)
        padded_query, padded_key, padded_value = (cat([part, rest], 1) for part in (roped_query, roped_key, value))
        out = flex_attention(padded_query, padded_key, padded_value)
        return narrow(out, batch, tokens, heads, width)


class SparseSelfAttention(SelfAttention):
    """Video sparse attention: means of cubes of tokens attend to each other, and each cube to the best of them token by token."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads)
        self.to_gate_compress = Linear(dim, dim)

    def gate(self, x: Tensor) -> list[Tensor]:
        return [self.to_gate_compress(x)]

    def arranged(self, together: Tensor, tiles: Tiles | None) -> Tensor:
        assert tiles is not None
        frames, height, width = (-(-n // CUBE) for n in tiles)
        return _tiled(together, frames * height * width * CUBE**3)

    def kernel(self, parts: tuple[Tensor, ...]) -> Tensor:
        query, key, value, gate = (_transposed(part).contiguous() for part in parts)
        return _transposed(self._sparse(query, key, value, gate))

    def restored(self, out: Tensor, tokens: Size) -> Tensor:
        return pad(out, out.shape[0], tokens, *out.shape[2:])  # x[:, untile_combined_index]

    def _sparse(self, query: Tensor, key: Tensor, value: Tensor, gate: Tensor) -> Tensor:
        """fastvideo_kernel/ops.py: video_sparse_attn, by its Triton kernels; x (B, heads, tokens, width)."""
        batch, heads, tokens, width = query.shape
        cubes = tokens // CUBE**3
        query_mean, key_mean, value_mean = (sum_over(x, batch, heads, cubes, width) for x in (query, key, value))
        scores = matmul(query_mean, key_mean.view(batch, heads, width, cubes)) * (1 / width**0.5)
        weights = keeps_result(upper(scores))
        compressed = _repeated(matmul(weights, value_mean), tokens)
        mask = query.tape.empty(scores.shape, "bool")
        chosen = query.tape.empty(scores.shape, "fp32")  # map_to_index: int32
        del mask
        exact = _block_sparse(query, key, value, chosen, self.kept)
        return compressed * gate + exact


class LinearSelfAttention(SelfAttention):
    """Sparse linear attention: the best blocks of keys exactly, and all of them by a linear attention that is projected."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads)
        self.proj_l = Linear(dim // heads, dim // heads)
        self.kept = 10  # topk_ratio

    def kernel(self, parts: tuple[Tensor, ...]) -> Tensor:
        query, key, value = (_transposed(part).contiguous() for part in parts)
        batch, heads, tokens, width = query.shape
        shifted = key + key.tape.empty((batch, heads, 1, width), key.dtype)  # k - mean(k), for the map of blocks alone
        blocks = (batch, heads, -(-tokens // QUERIES), -(-tokens // KEYS))
        chosen = key.tape.empty(blocks, "uint8")
        del shifted
        exact = _block_sparse(query, key, value, chosen, self.kept)
        features = [keeps_result(upper(part)).to(query.dtype) for part in (query, key)]
        square = matmul(features[1].view(batch, heads, width, tokens), value)
        total = sum_over(upper(features[1]), batch, heads, 1, width)
        norm = sum_over(upper(features[0] * total), batch, heads, tokens, 1)
        linear = self.proj_l(divide(matmul(features[0], square), norm + 1e-5))
        return _transposed((exact + linear).to(query.dtype))


SPARSE: Mapping[str, type[SelfAttention]] = {"vsa": SparseSelfAttention, "sla": LinearSelfAttention}


def _repeated(x: Tensor, tokens: Size) -> Tensor:
    """Each cube's result repeated for its tokens; the gradient is summed up again."""
    return pad(x, *x.shape[:2], tokens, x.shape[3])


def _block_sparse(query: Tensor, key: Tensor, value: Tensor, chosen: Tensor, kept: int) -> Tensor:
    """block_sparse_attn.py and triton_kernels/sla_triton.py: keep inputs, result, a float32 per head and token, and the blocks."""
    inputs, rows = (query, key, value), ((query.shape[:3], "fp32"),)
    saved = (*inputs, chosen)
    out = query.tape.compute(
        inputs, _block_backward, query.shape, query.dtype, saved=saved, keeps_result=True, rows=rows, context=kept
    )
    multiplied(query.tape, query.shape, (key.shape[2] * kept // 100,), products=2)
    return out


def _block_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    query, key, value = call.saved[:3]
    multiplied(grad.tape, query.shape, (key.shape[2] * call.context // 100,), products=5, backward=True)
    copy = grad.tape.empty(grad.shape, grad.dtype)  # grad_output.contiguous(), whose heads and tokens are transposed
    grads = tuple(grad.tape.empty(x.shape, x.dtype) for x in (query, key, value))
    delta = grad.tape.empty(query.shape[:3], "fp32")
    del copy, delta
    return grads


def _tiled(x: Tensor, tokens: Size) -> Tensor:
    """scatter_into_tile_buf: tokens picked in the order of their cubes, and put into one that has room for whole cubes."""
    room = x.tape.empty((x.shape[0], tokens, *x.shape[2:]), x.dtype)
    picked = pad(x, *x.shape)
    x.tape.record((picked,), room, _put_backward, context=picked.shape)
    return room


def _put_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad.tape.empty(call.context, grad.dtype),)


def _transposed(x: Tensor) -> Tensor:
    return x.view(x.shape[0], x.shape[2], x.shape[1], x.shape[3])


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """layers/rotary_embedding.py: _apply_rotary_emb, of pairs."""
    batch, tokens, heads, width = x.shape
    x1, x2 = unbind(x.view(batch, tokens, heads, width // 2, 2), -1)
    first = (x1.float() * cos - x2.float() * sin).type_as(x)
    second = (x2.float() * cos + x1.float() * sin).type_as(x)
    return stack([first, second]).view(batch, tokens, heads, width)


def flex_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compiled torch.nn.attention.flex_attention of x (B, tokens, heads, width), whose order its result takes.

    Keeps its inputs, its result and a float32 per head and token; the backward pass sums the result's products with its gradient in
    as many (torch/_higher_order_ops/flex_attention.py: FlexAttentionAutogradOp).
    """
    batch, tokens, heads, _ = query.shape
    rows = (((batch, heads, tokens), "fp32"),)
    inputs = (query, key, value)
    out = query.tape.compute(inputs, _flex_backward, query.shape, query.dtype, saved=inputs, keeps_result=True, rows=rows)
    multiplied(query.tape, (batch, heads, tokens, query.shape[3]), (tokens,), products=2)
    return out


def _flex_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    query = call.saved[0]
    batch, tokens, heads, width = query.shape
    delta = grad.tape.empty((batch, heads, tokens), "fp32")
    multiplied(grad.tape, (batch, heads, tokens, width), (tokens,), products=5, backward=True)
    grads = tuple(grad.tape.empty(x.shape, x.dtype) for x in call.saved[:3])
    del delta
    return grads


def _heads(x: Tensor, heads: int) -> Tensor:
    batch, tokens, dim = x.shape
    return x.view(batch, tokens, heads, dim // heads)


def _merged(x: Tensor) -> Tensor:
    batch, tokens, heads, width = x.shape
    return x.view(batch, tokens, heads * width)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """FlashAttention's own package, or torch's: both keep the same."""
    return _transposed(attention(_transposed(query), _transposed(key), _transposed(value)))
