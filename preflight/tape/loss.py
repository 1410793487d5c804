"""Losses."""

from __future__ import annotations

from preflight.tape.activation import absolute
from preflight.tape.tensor import Call, Grads, Tensor, numel


def mse_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error; keeps both. derivatives.yaml: mse_loss."""
    both = (prediction, target)
    return prediction.tape.compute(both, _mse_backward, (), prediction.dtype, saved=both)


def _mse_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    prediction, target = call.saved
    return tuple(
        grad.tape.empty(x.shape, x.dtype) if wanted else None for x, wanted in zip((prediction, target), call.needs, strict=True)
    )


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """mse_loss without a reduction: of each element; keeps both."""
    both = (prediction, target)
    return prediction.tape.compute(both, _mse_backward, prediction.shape, prediction.dtype, saved=both)


def summed(x: Tensor) -> Tensor:
    """The sum of all elements, whose gradient is one number seen everywhere. derivatives.yaml: sum."""
    return x.tape.compute((x,), _reduced_backward, (), x.dtype, context=x.shape)


def l1_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Absolute error, summed or averaged; keeps the difference (aten/src/ATen/native/Loss.cpp: l1_loss)."""
    difference = prediction - target
    error = absolute(difference)
    return error.tape.compute((error,), _reduced_backward, (), error.dtype, context=error.shape)


def relative_lp_loss(x: Tensor, y: Tensor) -> Tensor:
    """|x - y| / |y| of each sample, summed or averaged; x and y are (B, …). DiffSR utils/loss.py: LpLoss.rel with p = 2.

    Both are taken to be contiguous, so that reshaping them copies nothing.
    """
    batch = x.shape[0]
    flat = (batch, numel(x.shape[1:]))
    difference_norms = _norm(x.view(*flat) - y.view(*flat))
    norms = _norm(y.view(*flat))
    both = (difference_norms, norms)
    saved = (difference_norms if norms.requires_grad else None, norms)
    ratio = x.tape.compute(both, _divided_backward, (batch,), x.dtype, saved=saved)
    return x.tape.compute((ratio,), _reduced_backward, (), x.dtype, context=(batch,))


def _norm(x: Tensor) -> Tensor:
    """The 2-norm of each row of x (B, n); keeps x and the result. derivatives.yaml: linalg_vector_norm."""
    return x.tape.compute((x,), _norm_backward, x.shape[:1], x.dtype, saved=(x,), keeps_result=True)


def _norm_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    x, norms = call.saved
    # functions.cpp: norm_backward is grad * (self / norm).masked_fill_(norm == 0, 0)
    direction = grad.tape.empty(x.shape, x.dtype)
    zero = grad.tape.empty(norms.shape, "bool")
    out = grad.tape.empty(x.shape, x.dtype)
    del direction, zero
    return (out,)


def _divided_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return tuple(grad.tape.empty(grad.shape, grad.dtype) if wanted else None for wanted in call.needs)


def _reduced_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad.view(*call.context),)  # expanded, not copied
