"""Arithmetic in place on a part of a tensor (torch/csrc/autograd/functions/tensor.cpp: CopySlices)."""

from __future__ import annotations

from preflight.tape.tensor import Call, Grads, Shape, Tensor


def addcmul(target: Tensor, part: Shape, factor: Tensor, value: Tensor) -> None:
    """`target[part].addcmul_(factor, value)` with a constant `factor`, which is kept. derivatives.yaml: addcmul."""
    was = target.detach()
    was.node, was.index, was.requires_grad = target.node, target.index, target.requires_grad
    target.tape.record((was, value), target, _addcmul_backward, (factor,), context=part)


def scale(target: Tensor, part: Shape) -> None:
    """`target[part] *= number`."""
    was = target.detach()
    was.node, was.index, was.requires_grad = target.node, target.index, target.requires_grad
    target.tape.record((was,), target, _scale_backward, context=part)


def _scale_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    # the gradient is copied whole, its part cloned and scaled, and that copied back
    whole = grad.tape.empty(grad.shape, grad.dtype)
    part = grad.tape.empty(call.context, grad.dtype)
    scaled = grad.tape.empty(call.context, grad.dtype)
    del part, scaled
    return (whole,)


def _addcmul_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    # the gradient is copied whole and its part cloned; the value's is that part times the factor, itself scaled first
    whole = grad.tape.empty(grad.shape, grad.dtype)
    part = grad.tape.empty(call.context, grad.dtype)
    scaled = grad.tape.empty(call.context, grad.dtype)
    product = grad.tape.empty(call.context, grad.dtype)
    del part, scaled
    return (whole if call.needs[0] else None, product if call.needs[1] else None)
