"""Normalisations, fused as torch's kernels are or written out as its composite fallbacks are."""

from __future__ import annotations

from preflight.tape.activation import keeps_result
from preflight.tape.autocast import upper
from preflight.tape.meter import Size
from preflight.tape.tensor import Call, Grads, Shape, Tensor


def layer_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Over the last dimension; keeps the input and two float32 rows. derivatives.yaml: native_layer_norm."""
    return _fused(upper(x), _upper(weight), _upper(bias), (*x.shape[:-1], 1), x.shape[-1])


def group_norm(x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """x (B, C, *size); keeps the input and two rows of (B, groups). derivatives.yaml: native_group_norm."""
    return _fused(upper(x), _upper(weight), _upper(bias), (x.shape[0], groups), x.shape[1])


def batch_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """x (B, C, *size) in training; keeps the input and two rows of C. derivatives.yaml: native_batch_norm.

    cudnn_batch_norm keeps the same and a reserve space of its own, empty for the NCHW layout.
    """
    return _fused(x, weight, bias, (x.shape[1],), x.shape[1])


def rms_norm(x: Tensor, weight: Tensor | None = None) -> Tensor:
    """Over the last dimension, written out (aten/src/ATen/native/layer_norm.cpp: rms_norm_composite).

    The input is raised to float32, squared, averaged, and scaled twice; the result falls back to the input's dtype.
    """
    wide = x.float()
    mean = mean_of_squares(wide)
    out = wide * keeps_result(mean)
    del wide, mean
    if weight is not None:
        out = out * weight
    return out.type_as(x)


def mean_of_squares(x: Tensor) -> Tensor:
    """`x.pow(2).mean(-1, keepdim=True)`."""
    square = x.tape.compute((x,), _square_backward, x.shape, x.dtype, saved=(x,))
    return x.tape.compute((square,), _mean_backward, (*x.shape[:-1], 1), x.dtype, context=x.shape)


def _square_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    (x,) = call.saved
    # functions.cpp: pow_backward is grad * (exponent * self.pow(exponent - 1)); C++ keeps the three until the expression ends
    power = x.tape.empty(x.shape, x.dtype)
    scaled = power * 2.0
    return (grad * scaled,)


def _mean_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad.tape.empty(call.context, grad.dtype),)  # the row expanded, then divided


def _upper(x: Tensor | None) -> Tensor | None:
    return None if x is None else upper(x)


def _fused(x: Tensor, weight: Tensor | None, bias: Tensor | None, rows: Shape, channels: Size) -> Tensor:
    row = (rows, "fp32")
    return x.tape.compute((x, weight, bias), _fused_backward, x.shape, x.dtype, saved=(x,), rows=(row, row), context=channels)


def _fused_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    x = call.saved[0]
    into = grad.tape.empty(x.shape, x.dtype) if call.needs[0] else None
    row = (call.context,)
    return (into, *(grad.tape.empty(row, grad.dtype) if wanted else None for wanted in call.needs[1:]))
