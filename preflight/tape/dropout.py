"""Dropout with a probability above zero, in training."""

from __future__ import annotations

from preflight.tape.tensor import Call, Grads, Tensor


def dropout(x: Tensor) -> Tensor:
    """x times a random mask of its own dtype, which is kept (aten/src/ATen/native/Dropout.cpp: _dropout_impl, as traces count it).

    The fused kernel of CUDA keeps a mask of one byte an element instead, so on a GPU this is an upper bound.
    """
    mask = x.tape.empty(x.shape, x.dtype)
    return x * mask


def fused_dropout(x: Tensor) -> Tensor:
    """CUDA's own kernel, which keeps a mask of one byte an element. derivatives.yaml: native_dropout."""
    return x.tape.compute((x,), _fused_backward, x.shape, x.dtype, rows=((x.shape, "bool"),))


def _fused_backward(_: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad.tape.empty(grad.shape, grad.dtype),)
