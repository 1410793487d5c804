"""One tensor divided by another."""

from __future__ import annotations

from preflight.tape.dtypes import promote
from preflight.tape.tensor import Call, Grads, Tensor, broadcast


def divide(x: Tensor, y: Tensor) -> Tensor:
    """x / y, broadcast; both may want a gradient. derivatives.yaml: div.Tensor keeps both."""
    saved = (x if y.requires_grad else None, y)
    return x.tape.compute((x, y), _divide_backward, broadcast(x.shape, y.shape), promote(x.dtype, y.dtype), saved=saved)


def _divide_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    x, y = call.saved
    into_x = grad.tape.empty(grad.shape, grad.dtype) if call.needs[0] else None
    if not call.needs[1]:
        return (into_x, None)
    # functions.cpp: div_tensor_other_grad is -grad * ((self / other) / other); C++ keeps the parts until the expression ends
    negative = -grad
    ratio = x.tape.empty(grad.shape, x.dtype)
    twice = x.tape.empty(grad.shape, y.dtype)
    return (into_x, negative * twice if ratio is not None else None)
