"""Scaled dot-product attention, by the kernel that torch would run."""

from __future__ import annotations

from preflight.tape.tensor import Call, Grads, Tensor


def flash_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q, k, v (B, heads, tokens, width) give (B, heads, tokens, width).

    Keeps q, k, v, the output and one float32 per head and query token (the log-sum-exp), and the random state that dropout
    would need. derivatives.yaml: _scaled_dot_product_flash_attention.
    """
    rows = ((q.shape[:-1], "fp32"), ((2,), "int64"), ((1,), "int64"))
    return q.tape.compute((q, k, v), _flash_backward, q.shape, q.dtype, saved=(q, k, v), keeps_result=True, rows=rows)


def _flash_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    q, k, v = call.saved[:3]
    # the kernel makes all three, wanted or not
    grads = tuple(grad.tape.empty(x.shape, x.dtype) for x in (q, k, v))
    return tuple(g if wanted else None for g, wanted in zip(grads, call.needs, strict=True))
