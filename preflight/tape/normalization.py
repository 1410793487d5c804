"""Normalisations, fused as torch's kernels are or written out as its composite fallbacks are."""

from __future__ import annotations

from preflight.tape.activation import keeps_result
from preflight.tape.autocast import upper
from preflight.tape.dtypes import LOW
from preflight.tape.meter import Size
from preflight.tape.tensor import Call, Grads, Shape, Tensor


def layer_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Over the last dimension; keeps its inputs and two float32 rows. derivatives.yaml: native_layer_norm."""
    return _fused(upper(x), _upper(weight), _upper(bias), (*x.shape[:-1], 1), x.shape[-1], keeps_bias=True)


def layer_norm_whole(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Over all dimensions but the first, each element with a weight of its own."""
    row, shapes = ((x.shape[0], *(1 for _ in x.shape[1:])), "fp32"), (weight.shape, bias.shape)
    inputs = (upper(x), upper(weight), upper(bias))
    x = inputs[0]
    return x.tape.compute(inputs, _whole_backward, x.shape, x.dtype, saved=(x,), rows=(row, row), context=shapes)


def group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, *, gradient_strided: bool = False
) -> Tensor:
    """x (B, C, *size); keeps the input, the weight and two rows of (B, groups). derivatives.yaml: native_group_norm.

    A gradient that arrives in another order of dimensions is copied for the kernel.
    """
    rows = (x.shape[0], groups)
    return _fused(upper(x), _upper(weight), _upper(bias), rows, x.shape[1], gradient_strided=gradient_strided)


def batch_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """x (B, C, *size) in training; keeps the input and two rows of C. derivatives.yaml: native_batch_norm.

    cudnn_batch_norm keeps the same and a reserve space of its own, empty for the NCHW layout.
    """
    return _fused(x, weight, bias, (x.shape[1],), x.shape[1])


def rms_norm(x: Tensor, weight: Tensor | None = None) -> Tensor:
    """Over the last dimension, as the run's trainer and torch have it written (`Tape.norms`)."""
    return _RMS_NORMS[x.tape.norms](x, weight)


def _composite_rms_norm(x: Tensor, weight: Tensor | None) -> Tensor:
    """Written out (aten/src/ATen/native/layer_norm.cpp: rms_norm_composite).

    The input is raised to float32, squared, averaged, and scaled twice; the result falls back to the input's dtype.
    """
    wide = x.float()
    mean = mean_of_squares(wide)
    out = wide * keeps_result(mean)
    del wide, mean
    if weight is not None:
        out = out * weight
    return out.type_as(x)


def _plain_rms_norm(x: Tensor, weight: Tensor | None) -> Tensor:
    """diffusers/models/normalization.py: RMSNorm, in Python; the input is kept beside its float32 copy."""
    variance = mean_of_squares(x.float())
    x = x * keeps_result(variance + 1e-6)
    if weight is None:
        return x
    if weight.dtype in LOW:
        x = x.to(weight.dtype)
    return x * weight


def _fused_rms_norm(x: Tensor, weight: Tensor | None) -> Tensor:
    """One kernel, of torch 2.9 and later on CUDA (derivatives.yaml: _fused_rms_norm); keeps the input and one float32 row."""
    row = ((*x.shape[:-1], 1), "fp32")
    context = (x.shape[-1], False)
    return x.tape.compute((x, weight, None), _fused_backward, x.shape, x.dtype, saved=(x,), rows=(row,), context=context)


_RMS_NORMS = {"composite": _composite_rms_norm, "plain": _plain_rms_norm, "fused": _fused_rms_norm}


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


def _fused(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    rows: Shape,
    channels: Size,
    *,
    keeps_bias: bool = False,
    gradient_strided: bool = False,
) -> Tensor:
    row, context = (rows, "fp32"), (channels, gradient_strided)
    inputs, saved = (x, weight, bias), (x, weight, bias if keeps_bias else None)
    return x.tape.compute(inputs, _fused_backward, x.shape, x.dtype, saved=saved, rows=(row, row), context=context)


def _fused_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    x = call.saved[0]
    channels, gradient_strided = call.context
    copy = grad.contiguous() if gradient_strided else None
    into = grad.tape.empty(x.shape, x.dtype) if call.needs[0] else None
    del copy
    row = (channels,)
    return (into, *(grad.tape.empty(row, grad.dtype) if wanted else None for wanted in call.needs[1:]))


def _whole_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    x = call.saved[0]
    shapes = (x.shape, *call.context)
    return tuple(grad.tape.empty(shape, grad.dtype) if wanted else None for shape, wanted in zip(shapes, call.needs, strict=True))
