"""Complex numbers as pairs of real ones, and rotations written with them."""

from __future__ import annotations

from preflight.tape.tensor import Call, Grads, Shape, Tensor

_COMPLEX = {"fp32": "complex64", "fp64": "complex128"}
_REAL = {complex_: real for real, complex_ in _COMPLEX.items()}


def view_as_complex(x: Tensor) -> Tensor:
    """x (…, 2) as complex numbers (…): the same bytes."""
    return _reinterpreted(x, x.shape[:-1], _COMPLEX[x.dtype])


def view_as_real(x: Tensor) -> Tensor:
    """Complex x (…) as pairs (…, 2): the same bytes."""
    return _reinterpreted(x, (*x.shape, 2), _REAL[x.dtype])


def apply_complex_rotary(x: Tensor, rotary: Tensor) -> Tensor:
    """x (B, tokens, heads, width) turned by rotary (B, tokens, width / 2), in float64 where that is complex128.

    diffusers/models/embeddings.py: apply_rotary_emb with use_real=False.
    """
    batch, tokens, heads, width = x.shape
    rotated = view_as_complex(x.float().view(batch, tokens, heads, width // 2, 2))
    rotary = rotary.view(rotary.shape[0], tokens, 1, width // 2)
    out = view_as_real(rotated * rotary).view(batch, tokens, heads, width)
    return out.type_as(x)


def _reinterpreted(x: Tensor, shape: Shape, dtype: str) -> Tensor:
    out = Tensor(x.tape, shape, dtype, x.storage)
    return x.tape.record((x,), out, _reinterpreted_backward, context=(x.shape, x.dtype))


def _reinterpreted_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    shape, dtype = call.context
    return (Tensor(grad.tape, shape, dtype, grad.storage),)
