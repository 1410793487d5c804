"""Scores, the best of them, and rows picked out by a mask and written back: how a mixture of experts routes its tokens."""

from __future__ import annotations

from preflight.tape.dtypes import promote
from preflight.tape.meter import Size
from preflight.tape.tensor import Call, Grads, Tensor


def pick(x: Tensor, mask: Tensor, rows: Size) -> Tensor:
    """`x[mask]` of x (n, width): so many `rows` of it. Keeps the mask. derivatives.yaml: index.Tensor."""
    indices = x.tape.empty((rows,), "int64")  # nonzero, for as long as the kernel runs
    out = x.tape.compute((x,), _pick_backward, (rows, *x.shape[1:]), x.dtype, saved=(mask,), context=x.shape)
    del indices
    return out


def put(target: Tensor, mask: Tensor, values: Tensor) -> None:
    """`target[mask] = values` in place. Keeps the mask. derivatives.yaml: index_put_."""
    was = target.detach()
    was.node, was.index, was.requires_grad = target.node, target.index, target.requires_grad
    target.tape.record((was, values), target, _put_backward, (mask,), context=values.shape)


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`topk` along the last dimension: the values and, kept for the backward pass, their indices."""
    shape = (*scores.shape[:-1], count)
    indices = scores.tape.empty(shape, "int64")
    values = scores.tape.compute((scores,), _whole_backward, shape, scores.dtype, saved=(indices,), context=scores.shape)
    return values, indices


def summed(x: Tensor, dim: int) -> Tensor:
    """`x.sum(dim)`; its gradient is the result's, expanded without a copy."""
    shape = (*x.shape[:dim], *x.shape[dim + 1 :])
    return x.tape.compute((x,), _expanded_backward, shape, x.dtype, context=x.shape)


def softmax(x: Tensor) -> Tensor:
    """Over the last dimension, in float32 under autocast; keeps its result."""
    dtype = promote(x.dtype, "fp32") if x.tape.autocast is not None else x.dtype
    x = x.to(dtype)
    return x.tape.compute((x,), _whole_backward, x.shape, dtype, keeps_result=True, context=x.shape)


def _pick_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad.tape.empty(call.context, grad.dtype),)  # zeros with the rows added in place


def _put_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    zeros = grad.tape.empty(call.context, grad.dtype) if call.needs[0] else None
    whole = grad.tape.empty(grad.shape, grad.dtype) if call.needs[0] else None
    del zeros
    return (whole, grad.tape.empty(call.context, grad.dtype) if call.needs[1] else None)


def _expanded_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad.view(*call.context),)


def _whole_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad.tape.empty(call.context, grad.dtype),)
