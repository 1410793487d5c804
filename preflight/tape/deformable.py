"""Deformable convolutions (torchvision.ops.deform_conv2d)."""

from __future__ import annotations

from preflight.tape.dtypes import BYTES
from preflight.tape.flops import multiplied
from preflight.tape.meter import Size, rounded
from preflight.tape.tensor import Call, Grads, Tensor, numel

PARALLEL = 32  # samples whose columns are made at once, at most; csrc/ops/cuda/deform_conv2d_kernel.cu: kMaxParallelImgs


def deform_conv(x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
    """x (B, C, h, w) sampled where `offset` says and weighed by `mask`, then convolved by weight (out, C, *kernel) at stride 1.

    csrc/ops/autograd/deform_conv2d_kernel.cpp keeps all five. The kernel holds every sample's columns, and its result twice more.
    """
    shape = (x.shape[0], weight.shape[0], *offset.shape[2:])
    inputs = (x, weight, offset, mask, bias)
    work = (shape, weight.shape[1:])
    out = x.tape.compute(inputs, _backward, shape, x.dtype, saved=inputs, context=work)
    x.tape.meter.workspace(columns(x, weight, offset) + 2 * rounded(numel(shape) * BYTES[x.dtype]))
    multiplied(x.tape, *work)
    return out


def columns(x: Tensor, weight: Tensor, offset: Tensor) -> Size:
    """Bytes of the columns: C x kernel elements at each place of the result, of as many samples as are taken at once."""
    batch = x.shape[0]
    together = batch - (batch > PARALLEL) * (batch - PARALLEL)
    return rounded(numel(weight.shape[1:]) * together * numel(offset.shape[2:]) * BYTES[x.dtype])


def _backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    x, weight, offset, _, _ = call.saved
    multiplied(grad.tape, *call.context, products=2, backward=True)
    grads = tuple(grad.tape.empty(saved.shape, saved.dtype) for saved in call.saved)
    # backward_gradient_parameters: the columns once more, and the gradient with the samples of each group side by side
    grad.tape.meter.workspace(columns(x, weight, offset) + rounded(numel(grad.shape) * BYTES[grad.dtype]))
    return tuple(g if wanted else None for g, wanted in zip(grads, call.needs, strict=True))
