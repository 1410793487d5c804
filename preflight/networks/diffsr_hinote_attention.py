"""The Galerkin attention of DiffSR's HiNOTE (models/HiNOTE/HiNOTE.py), and the normalisation it is written with."""

from __future__ import annotations

from collections.abc import Callable

from preflight.tape import linear as ops
from preflight.tape.linear import matmul
from preflight.tape.module import Conv, Module
from preflight.tape.shaping import chunk, sum_over, transpose
from preflight.tape.tensor import Call, Grads, Parameter, Tensor


class LayerNorm(Module):
    """Mean and deviation of the last dimension, written out."""

    def __init__(self, *shape: int) -> None:
        self.weight, self.bias = Parameter(shape), Parameter(shape)

    def forward(self, x: Tensor) -> Tensor:
        row = (*x.shape[:-1], 1)
        mean = sum_over(x, *row)
        std = standard_deviation(x)
        out = divide(x - mean, std + 1e-5)
        out = self.weight * out + self.bias
        return out


class GalerkinAttention(Module):
    """HiNOTE's Galerkin_attn, and SRNO's simple_attn, whose projections are biased and whose result is not activated.

    `last` says that x has its channels last in memory: then the heads are apart, and the products copy their operands.
    """

    def __init__(
        self, width: int, heads: int, act: Callable[[Tensor], Tensor], *, simple: bool = False, last: bool = False
    ) -> None:
        self.heads, self.head_width = heads, width // heads
        self.qkv_proj = Conv(width, 3 * width, (1, 1), bias=simple)
        self.o_proj1, self.o_proj2 = Conv(width, width, (1, 1), bias=simple), Conv(width, width, (1, 1), bias=simple)
        self.kln, self.vln = LayerNorm(heads, 1, self.head_width), LayerNorm(heads, 1, self.head_width)
        self.act, self.simple, self.last = act, simple, last

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        points = height * width
        bias = x
        qkv = transpose(self.qkv_proj(x), batch, self.heads, points, 3 * self.head_width)
        q, k, v = chunk(qkv, 3, -1)

        k = self.kln(k)
        v = self.vln(v)
        v = self._product(k.view(batch, self.heads, self.head_width, points), v, copied=self.last) / 1.0
        v = transpose(self._product(q, v), batch, self.heads, points, self.head_width)

        v = v.contiguous().view(batch, height, width, channels)
        ret = v.view(batch, channels, height, width) + bias
        bias = self.o_proj2(self.act(self.o_proj1(ret))) + bias
        return bias if self.simple else self.act(bias)

    def _product(self, a: Tensor, b: Tensor, *, copied: bool = False) -> Tensor:
        a = a.contiguous() if self.last else a
        b = b.contiguous() if copied else b
        return matmul(a, b)


def standard_deviation(x: Tensor) -> Tensor:
    """x.std(-1, keepdim=True); keeps x and the result. derivatives.yaml: std.correction."""
    return x.tape.compute((x,), _std_backward, (*x.shape[:-1], 1), x.dtype, saved=(x,), keeps_result=True)


def divide(x: Tensor, y: Tensor) -> Tensor:
    """x / y, both wanting a gradient and kept. derivatives.yaml: div.Tensor."""
    return x.tape.compute((x, y), _divide_backward, x.shape, x.dtype, saved=(x, y))


def depthwise(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    """A convolution of each channel with the same fixed kernel; what is kept is the kernel."""
    kernels = Tensor(x.tape, (x.shape[1], *weight.shape[1:]), weight.dtype, weight.storage)
    return ops.conv(x, kernels, padding=padding)


def _std_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    x, result = call.saved
    # FunctionsManual.cpp: std_backward divides the gradient by twice the result where that is not zero, var_backward multiplies it
    # with x less its mean
    doubled = result * 2.0
    variance = grad.tape.empty(grad.shape, grad.dtype)
    zero = grad.tape.empty(result.shape, "bool")
    del doubled, zero
    mean = grad.tape.empty(result.shape, x.dtype)
    centred = grad.tape.empty(x.shape, x.dtype)
    scaled = variance * 2.0
    out = grad.tape.empty(x.shape, x.dtype)
    del mean, centred, scaled
    return (out,)


def _divide_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    x = call.saved[0]

    def new() -> Tensor:
        return x.tape.empty(x.shape, x.dtype)

    into_x = new()
    # FunctionsManual.cpp: div_tensor_other_grad
    ratio, negated, product = new(), new(), new()
    into_y = new()
    del ratio, negated, product
    return (into_x, into_y)
