"""Frozen weights kept in fewer bits than they are multiplied in."""

from __future__ import annotations

from dataclasses import dataclass

from preflight.tape import linear as ops
from preflight.tape.autocast import lower
from preflight.tape.flops import multiplied
from preflight.tape.meter import rounded, somewhere
from preflight.tape.slicing import adjacent
from preflight.tape.tensor import Call, Grads, Parameter, Shape, Tensor, numel


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """How a weight is kept, and what a product with it makes.

    `bits` an element, the constants of its blocks included. `keeps`: the wide copy that the forward made is saved for the backward
    (else it is made again there). `copies`: wide copies that are alive at once while one is made. `inside`: the kernel of the
    forward reads the narrow weight itself. `saves_input`: the input is saved too, although the weight does not train. `integers`:
    the input is rotated and narrowed as the weight is, and 8-bit integers are multiplied; autocast does not reach that, so what
    comes out has the input's dtype.
    """

    bits: float
    keeps: bool = False
    copies: int = 1
    inside: bool = False
    saves_input: bool = False
    integers: bool = False


class Quantized(Parameter):
    """A weight in `form`; its dtype stays the one that the network sees."""

    __slots__ = ("form",)

    def __init__(self, weight: Parameter, form: Form) -> None:
        super().__init__(weight.shape, weight.dtype)
        self.form, self.copies, self.requires_grad = form, weight.copies, False

    @property
    def nbytes(self) -> int:
        return int(rounded(int(self.numel * self.form.bits / 8)))


def linear(x: Tensor, weight: Quantized, bias: Tensor | None) -> Tensor:
    """x (…, in) by weight (out, in) gives (…, out)."""
    if weight.form.integers:
        return _integers(x, weight, bias)
    dtype = x.tape.autocast or x.dtype
    if weight.form.keeps:
        return ops.linear(x, _wide(x, weight, dtype), bias)
    x = adjacent(x)
    saved = (x,) if weight.form.saves_input else ()
    x = lower(x)
    wide = None if weight.form.inside else _wide(x, weight, dtype)
    shape = (*x.shape[:-1], weight.shape[0])
    multiplied(x.tape, shape, (weight.shape[1],))
    out = x.tape.compute((x, bias), _backward, shape, dtype, saved=saved, context=(x.shape, weight))
    del wide
    return out


FEW_ROWS = 32  # sdnq linear_int8.py: quantized_linear_forward_int8_matmul


def _integers(x: Tensor, weight: Quantized, bias: Tensor | None) -> Tensor:
    """sdnq training/layers/linear/linear_int8: INT8MatmulBackward. Few rows are multiplied by a wide copy, which is saved."""
    rows = numel(x.shape[:-1])
    if not somewhere(rows >= FEW_ROWS):
        return ops.linear(x, _wide(x, weight, weight.dtype), bias)
    x = adjacent(x)
    narrow = _narrowed(lower(x), x.shape)
    shape = (*x.shape[:-1], weight.shape[0])
    multiplied(x.tape, shape, (weight.shape[1],))
    out = x.tape.compute((x, bias), _integers_backward, shape, x.dtype, context=(x.shape, weight))
    del narrow
    return out


def _narrowed(x: Tensor, shape: Shape) -> Tensor:
    rotated = x.tape.empty(shape, x.dtype)
    del x
    narrow = rotated.tape.empty(shape, "uint8")
    del rotated
    return narrow


def _integers_backward(call: Call, grad: Tensor | None) -> Grads:
    """The weight is widened to its scales' float32 and narrowed the other way; all of it lives until the result is rotated."""
    assert grad is not None
    grad = adjacent(grad)
    tape, (shape, weight) = grad.tape, call.context
    multiplied(tape, grad.shape, (weight.shape[1],), products=call.needs[0], backward=True)
    x = None
    if call.needs[0]:
        wide = tape.empty(weight.shape, "fp32")
        narrow, narrow_grad = tape.empty(weight.shape, "uint8"), tape.empty(grad.shape, "uint8")
        product = tape.empty(shape, grad.dtype)
        x = tape.empty(shape, grad.dtype)
        del wide, narrow, narrow_grad, product
    bias = tape.empty((weight.shape[0],), grad.dtype) if call.needs[1] else None
    return (x, bias)


def _wide(x: Tensor, weight: Quantized, dtype: str) -> Tensor:
    before = [x.tape.empty(weight.shape, dtype) for _ in range(weight.form.copies - 1)]
    wide = x.tape.empty(weight.shape, dtype)
    del before
    return wide


def _backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    grad = adjacent(grad)
    shape, weight = call.context
    bias = grad.tape.empty((weight.shape[0],), grad.dtype) if call.needs[1] else None
    wide = _wide(grad, weight, grad.dtype)
    multiplied(grad.tape, grad.shape, (weight.shape[1],), products=call.needs[0], backward=True)
    x = grad.tape.empty(shape, grad.dtype) if call.needs[0] else None
    del wide
    return (x, bias)
