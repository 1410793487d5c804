"""Arithmetic of more than two tensors in one kernel."""

from __future__ import annotations

from preflight.tape.autocast import upper
from preflight.tape.dtypes import promote
from preflight.tape.tensor import Call, Grads, Tensor, broadcast


def addcmul(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """x + first * second; each factor is kept if the other wants a gradient. derivatives.yaml: addcmul.

    Autocast brings all to the widest dtype among them (aten/src/ATen/autocast_mode.h: AT_FORALL_PROMOTE).
    """
    inputs = (x, first, second)  # the caller's own live as long as the kernel runs
    if any(t.dtype == "fp32" for t in inputs):
        x, first, second = (upper(t) for t in inputs)
    shape = broadcast(broadcast(first.shape, second.shape), x.shape)
    dtype = promote(promote(first.dtype, second.dtype), x.dtype)
    saved = (first if second.requires_grad else None, second if first.requires_grad else None)
    return x.tape.compute((x, first, second), _backward, shape, dtype, saved=saved)


def _backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    first, second = call.saved
    # grad * (tensor2 * value), C++ keeping the scaled factor until the expression ends
    to_first = grad * (second * 1.0) if call.needs[1] else None
    to_second = grad * (first * 1.0) if call.needs[2] else None
    return (grad if call.needs[0] else None, to_first, to_second)
