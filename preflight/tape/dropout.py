"""Dropout with a probability above zero, in training."""

from __future__ import annotations

from preflight.tape.tensor import Tensor


def dropout(x: Tensor) -> Tensor:
    """x times a random mask of its own dtype, which is kept (aten/src/ATen/native/Dropout.cpp: _dropout_impl, as traces count it).

    The fused kernel of CUDA keeps a mask of one byte an element instead, so on a GPU this is an upper bound.
    """
    mask = x.tape.empty(x.shape, x.dtype)
    return x * mask
