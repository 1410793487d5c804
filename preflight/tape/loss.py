"""Losses."""

from __future__ import annotations

from preflight.tape.tensor import Call, Grads, Tensor


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
