"""Matrix products and convolutions: the input is kept if the weight trains, the weight if the input wants a gradient."""

from __future__ import annotations

from collections.abc import Sequence

from preflight.tape.autocast import lower
from preflight.tape.flops import multiplied
from preflight.tape.meter import somewhere
from preflight.tape.slicing import Slice, adjacent, as_slice
from preflight.tape.tensor import Call, Grads, Shape, Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (…, in) by weight (out, in) gives (…, out). derivatives.yaml: addmm, mm."""
    # autocast casts a call's arguments from the last to the first (they are C++ arguments), which the backward order shows
    bias = lower(bias) if bias is not None else None
    weight = lower(weight)
    x = lower(x)
    shape = (*x.shape[:-1], weight.shape[0])
    if not isinstance(x, Slice):
        return _product(x, weight, bias, shape)
    # Linear.cpp: an input whose bytes are apart is copied, and the bias added to the product
    out = _product(adjacent(x), weight, bias, shape)
    return out if bias is None else adjacent(as_slice(out))


def linear_transposed(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same for an x (B, n, in) whose last two dimensions are swapped in memory, and the bias added to the product.

    Linear.cpp, LinearAlgebra.cpp: should_fold. Several samples are copied into one matrix if the weight trains, else they are
    multiplied one by one. The addition makes a new tensor, as the traces count it; a GPU adds in place.
    """
    bias = lower(bias) if bias is not None else None
    weight = lower(weight)
    x = lower(x)
    merged = x.contiguous() if weight.requires_grad and somewhere(x.shape[0] > 1) else x
    out = _product(merged, weight, None, (*x.shape[:-1], weight.shape[0]))
    return out if bias is None else out + bias


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """Batched product (…, n, k) by (…, k, m); both operands may want a gradient. derivatives.yaml: bmm."""
    b = lower(b)
    a = lower(a)
    return _product(a, b, None, (*a.shape[:-1], b.shape[-1]))


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sequence[int] | int = 1,
    padding: Sequence[int] | int = 0,
) -> Tensor:
    """x (B, C, *size) by weight (out, C, *kernel). derivatives.yaml: convolution."""
    kernel = weight.shape[2:]
    strides, paddings = _each(stride, len(kernel)), _each(padding, len(kernel))
    size = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(x.shape[2:], kernel, strides, paddings, strict=True))
    out = (x.shape[0], weight.shape[0], *size)
    return _convolution(x, weight, bias, out, out)


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sequence[int] | int = 1,
    padding: Sequence[int] | int = 0,
    output_padding: Sequence[int] | int = 0,
) -> Tensor:
    """x (B, C, *size) by weight (C, out, *kernel), upsampling by the stride."""
    kernel = weight.shape[2:]
    strides, paddings, extra = (_each(v, len(kernel)) for v in (stride, padding, output_padding))
    size = tuple((n - 1) * s - 2 * p + k + e for n, k, s, p, e in zip(x.shape[2:], kernel, strides, paddings, extra, strict=True))
    return _convolution(x, weight, bias, (x.shape[0], weight.shape[1], *size), x.shape)


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, shape: Shape, positions: Shape) -> Tensor:
    """The kernel, applied at each of `positions`: those of the output, or of the input where that is what it is spread from."""
    bias = lower(bias) if bias is not None else None
    weight = lower(weight)
    x = lower(x)
    work = (positions, weight.shape[1:])
    context = (x.shape, weight.shape, bias.shape if bias is not None else None, work)
    # one formula gives all three gradients, so both are kept whichever of them is wanted
    out = x.tape.compute((x, weight, bias), _product_backward, shape, x.dtype, saved=(x, weight), context=context)
    multiplied(x.tape, *work)
    return out


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, shape: Shape) -> Tensor:
    saved = (x if weight.requires_grad else None, weight if x.requires_grad else None)
    work = (shape, x.shape[-1:])
    context = (x.shape, weight.shape, bias.shape if bias is not None else None, work)
    out = x.tape.compute((x, weight, bias), _product_backward, shape, x.dtype, saved=saved, context=context)
    multiplied(x.tape, *work)
    return out


def _each(value: Sequence[int] | int, dimensions: int) -> Sequence[int]:
    return (value,) * dimensions if isinstance(value, int) else value


def _product_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    grad = adjacent(grad)
    tape, (x_shape, weight_shape, bias_shape, work) = grad.tape, call.context
    multiplied(tape, *work, products=call.needs[0] + call.needs[1], backward=True)
    weight = tape.empty(weight_shape, grad.dtype) if call.needs[1] else None
    bias = tape.empty(bias_shape, grad.dtype) if call.needs[2] else None
    x = tape.empty(x_shape, grad.dtype) if call.needs[0] else None
    return (x, weight, bias)
