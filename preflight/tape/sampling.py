"""Reading a field at given points."""

from __future__ import annotations

from preflight.tape.tensor import Call, Grads, Tensor


def grid_sample(x: Tensor, grid: Tensor) -> Tensor:
    """x (B, C, h, w) at the points of grid (B, H, W, 2) gives (B, C, H, W). derivatives.yaml: grid_sampler_2d, which keeps both."""
    shape = (x.shape[0], x.shape[1], *grid.shape[1:3])
    return x.tape.compute((x, grid), _sample_backward, shape, x.dtype, saved=(x, grid))


def _sample_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    x, grid = call.saved
    # the kernel makes the grid's gradient, wanted or not (aten/src/ATen/native/cuda/GridSampler.cpp)
    to_x = grad.tape.empty(x.shape, x.dtype) if call.needs[0] else None
    to_grid = grad.tape.empty(grid.shape, grid.dtype)
    return (to_x, to_grid if call.needs[1] else None)
