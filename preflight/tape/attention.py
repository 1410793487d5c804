"""Scaled dot-product attention, by the kernel that torch would run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from preflight.tape.activation import keeps_result
from preflight.tape.dtypes import BYTES
from preflight.tape.flops import multiplied
from preflight.tape.linear import matmul
from preflight.tape.meter import rounded
from preflight.tape.tensor import Call, Grads, Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """scaled_dot_product_attention: q, k, v (B, heads, tokens, width) give (B, heads, tokens, width).

    The flash kernel takes no mask; with one, the memory-efficient kernel runs where it can.
    """
    if mask is not None and q.tape.attention != "math":
        return efficient_attention(q, k, v, mask)
    return _KERNELS[q.tape.attention](q, k, v)


def flash_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q, k, v (B, heads, tokens, width) give (B, heads, tokens, width).

    Keeps q, k, v, the output and one float32 per head and query token (the log-sum-exp), and the random state that dropout
    would need. derivatives.yaml: _scaled_dot_product_flash_attention.
    """
    q, k, v = _cast(q, k, v)
    rows = ((q.shape[:-1], "fp32"), ((2,), "int64"), ((1,), "int64"))
    out = q.tape.compute((q, k, v), attention_backward, q.shape, q.dtype, saved=(q, k, v), keeps_result=True, rows=rows)
    multiplied(q.tape, q.shape, k.shape[2:3], products=2)  # the scores of every pair of tokens, and the sums they weight
    return out


def _cast(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """scaled_dot_product_attention is among the operators whose inputs autocast lowers, from the last to the first."""
    dtype = q.tape.attention_dtype
    if dtype is None:
        return q, k, v
    v = v.to(dtype)
    k = k.to(dtype)
    return q.to(dtype), k, v


def attention_backward(call: Call, grad: Tensor | None) -> Grads:
    """Gradients of q, k and v, the first three that `call` saved."""
    assert grad is not None
    q, k, v = call.saved[:3]
    # flash_attn/flash_api.cpp, mha_bwd: dq is summed up in float32 over query tokens rounded up to 128
    batch, heads, tokens, width = q.shape
    sums = rounded(batch * heads * (-(-tokens // 128) * 128) * width * BYTES["fp32"])
    if k.shape[1] != heads:  # grouped queries: dk and dv of every query's head, before they are summed up by group
        sums = sums + 2 * rounded(batch * heads * k.shape[2] * width * BYTES[k.dtype])
    # the kernel makes the scores again, then all three, wanted or not: five products
    multiplied(grad.tape, q.shape, k.shape[2:3], products=5, backward=True)
    grads = tuple(grad.tape.empty(x.shape, x.dtype) for x in (q, k, v))
    grad.tape.meter.workspace(sums)
    return tuple(g if wanted else None for g, wanted in zip(grads, call.needs, strict=True))


def math_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The quadratic form (aten/src/ATen/native/transformers/attention.cpp: _scaled_dot_product_attention_math).

    Low precision is raised to float32, the scale is split between q and k, and the scores of every pair of tokens are kept.
    """
    with _suspended(q):
        query, key, value = q.to("fp32") * 1.0, k.to("fp32") * 1.0, v.to("fp32")
        key = key.view(*key.shape[:-2], key.shape[-1], key.shape[-2])
        scores = matmul(query, key)
        del query, key
        weights = keeps_result(scores)
        del scores
        return matmul(weights, value).to(q.dtype)


@contextmanager
def _suspended(q: Tensor) -> Iterator[None]:
    """The composite runs below autocast, which does not cast inside it; the cache of casts stays."""
    tape, before = q.tape, q.tape.autocast
    tape.autocast = None
    try:
        yield
    finally:
        tape.autocast = before


def efficient_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention without quadratic memory; a mask (B, heads or 1, query tokens or 1, key tokens) is kept as well.

    The log-sum-exp is kept for query tokens rounded up to 32 (transformers/cuda/attention.cu: kAlignLSE), and the random state
    that dropout would need. derivatives.yaml: _scaled_dot_product_efficient_attention.
    """
    q, k, v = _cast(q, k, v)
    if mask is not None and mask.dtype == "bool":
        mask = q.tape.empty(mask.shape, q.dtype)  # sdp_utils: convert_boolean_attn_mask
    rows = (((*q.shape[:2], -(-q.shape[2] // 32) * 32), "fp32"), ((), "int64"), ((), "int64"))
    out = q.tape.compute((q, k, v), attention_backward, q.shape, q.dtype, saved=(q, k, v, mask), keeps_result=True, rows=rows)
    multiplied(q.tape, q.shape, k.shape[2:3], products=2)
    return out


_KERNELS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "flash": flash_attention,
    "efficient": efficient_attention,
    "math": math_attention,
}
