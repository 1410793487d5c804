"""Taking tensors apart and putting them together: which of it is a view, and what its gradient costs."""

from __future__ import annotations

from collections.abc import Sequence

from preflight.tape.dtypes import promote
from preflight.tape.meter import Size, somewhere
from preflight.tape.tensor import Call, Grads, Shape, Tensor


def cat(tensors: Sequence[Tensor], dim: int) -> Tensor:
    """One new tensor; the gradient is handed back in views of it."""
    first = tensors[0]
    dim %= len(first.shape)
    total: Size = 0
    dtype = first.dtype
    for x in tensors:
        total = total + x.shape[dim]
        dtype = promote(dtype, x.dtype)
    shape = (*first.shape[:dim], total, *first.shape[dim + 1 :])
    return first.tape.compute(tensors, _cat_backward, shape, dtype, context=[x.shape for x in tensors])


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """One new tensor with the pieces along a new last dimension."""
    first = tensors[0]
    shape, context = (*first.shape, len(tensors)), [x.shape for x in tensors]
    return first.tape.compute(tensors, _cat_backward, shape, first.dtype, context=context)


def chunk(x: Tensor, pieces: int, dim: int) -> tuple[Tensor, ...]:
    """Equal views along `dim`; their gradients are put together in one new tensor (split_backward)."""
    dim %= len(x.shape)
    shape = (*x.shape[:dim], x.shape[dim] // pieces, *x.shape[dim + 1 :])
    return _views(x, [shape] * pieces)


def unbind(x: Tensor, dim: int) -> tuple[Tensor, ...]:
    """Views without `dim`; their gradients are stacked in one new tensor (unbind_backward)."""
    dim %= len(x.shape)
    return _views(x, [x.shape[:dim] + x.shape[dim + 1 :]] * int(x.shape[dim]))


def transpose(x: Tensor, *shape: Size) -> Tensor:
    """A view in another order of dimensions, where the gradient comes in that order and is copied back into the input's."""
    out = Tensor(x.tape, shape, x.dtype, x.storage)
    return x.tape.record((x,), out, _whole_backward, context=x.shape)


def narrow(x: Tensor, *shape: Size) -> Tensor:
    """A view of a part of x (slice, select, narrow); its gradient is a zero tensor of x's size with the part copied in."""
    out = Tensor(x.tape, shape, x.dtype, x.storage)
    return x.tape.record((x,), out, _whole_backward, context=x.shape)


def assign(target: Tensor, part: Shape, value: Tensor) -> None:
    """`target[part] = value` in place (torch/csrc/autograd/functions/tensor.cpp: CopySlices)."""
    was = target.detach()
    was.node, was.index, was.requires_grad = target.node, target.index, target.requires_grad
    target.tape.record((was, value), target, _assign_backward, context=part)


def overwrite(target: Tensor, value: Tensor) -> None:
    """`target[:] = value` in place (copy_): the value's gradient is the target's."""
    target.tape.record((value,), target, _overwrite_backward)


def where(a: Tensor, b: Tensor, condition: Tensor) -> Tensor:
    """A new tensor of a's shape; the condition is kept. derivatives.yaml: where."""
    return a.tape.compute((a, b), _where_backward, a.shape, promote(a.dtype, b.dtype), saved=(condition,))


def exchange(x: Tensor, *shape: Size) -> Tensor:
    """x (B, tokens, heads, width) as `shape`, in which heads are divided or together again; the gradient is exchanged back.

    yunchang comm/all_to_all.py: all_to_all_4D. What goes to each rank is laid out one after the other first; what comes is copied
    into its order, where it is not in that already: tokens of a single sample are.
    """
    to_heads = shape[2] < x.shape[2]
    ordered = to_heads and not somewhere(x.shape[0] > 1)
    before = _exchanged(x, ordered=ordered)
    out = x.tape.compute((x,), _exchange_backward, shape, x.dtype, context=(x.shape, to_heads))
    del before
    return out


def _exchanged(x: Tensor, *, ordered: bool) -> list[Tensor]:
    """What is there besides as the result is made: what was sent, and what came in another order."""
    return [x.tape.empty(x.shape, x.dtype) for _ in range(1 if ordered else 2)]


def _exchange_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    shape, was_to_heads = call.context
    before = _exchanged(grad, ordered=not was_to_heads and not somewhere(grad.shape[0] > 1))
    back = grad.tape.empty(shape, grad.dtype)
    del before
    return (back,)


def sum_over(x: Tensor, *shape: Size) -> Tensor:
    """A reduction (sum, mean) to `shape`; its gradient is the result's, expanded."""
    return x.tape.compute((x,), _whole_backward, shape, x.dtype, context=x.shape)


def pad(x: Tensor, *shape: Size) -> Tensor:
    """A new, larger tensor; the gradient is cut out of it as a copy (constant_pad_nd_backward)."""
    return x.tape.compute((x,), _whole_backward, shape, x.dtype, context=x.shape)


def upsample_nearest(x: Tensor, factor: int) -> Tensor:
    """x (B, C, *size) with each size multiplied by `factor`; nothing is kept."""
    shape = (*x.shape[:2], *(n * factor for n in x.shape[2:]))
    return x.tape.compute((x,), _whole_backward, shape, x.dtype, context=x.shape)


def roll(x: Tensor) -> Tensor:
    """A new tensor with the elements moved around; so is its gradient."""
    return x.tape.compute((x,), _whole_backward, x.shape, x.dtype, context=x.shape)


def pixel_shuffle(x: Tensor, factor: int) -> Tensor:
    """x (B, C * factor², H, W) as a new (B, C, H * factor, W * factor); nothing is kept, the gradient is put back as a copy."""
    batch, channels, height, width = x.shape
    shape = (batch, channels // factor**2, height * factor, width * factor)
    return x.tape.compute((x,), _whole_backward, shape, x.dtype, context=x.shape)


def avg_pool(x: Tensor, kernel: int) -> Tensor:
    """x (B, C, H, W) divided by `kernel`; keeps its input (avg_pool2d)."""
    shape = (*x.shape[:2], *(n // kernel for n in x.shape[2:]))
    return x.tape.compute((x,), _whole_backward, shape, x.dtype, saved=(x,), context=x.shape)


def max_pool(x: Tensor, kernel: int) -> Tensor:
    """x (B, C, H, W) halved by `kernel`; keeps its input and an int64 index an output element (max_pool2d_with_indices)."""
    shape = (*x.shape[:2], *(n // kernel for n in x.shape[2:]))
    return x.tape.compute((x,), _whole_backward, shape, x.dtype, saved=(x,), rows=((shape, "int64"),), context=x.shape)


def _views(x: Tensor, shapes: list[Shape]) -> tuple[Tensor, ...]:
    first, *more = (Tensor(x.tape, shape, x.dtype, x.storage) for shape in shapes)
    x.tape.record((x,), first, _join_backward, context=x.shape, more=more)
    return (first, *more)


def _cat_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return tuple(grad.view(*shape) if wanted else None for shape, wanted in zip(call.context, call.needs, strict=True))


def _join_backward(call: Call, *grads: Tensor | None) -> Grads:
    some = next(grad for grad in grads if grad is not None)
    return (some.tape.empty(call.context, some.dtype),)


def _whole_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad.tape.empty(call.context, grad.dtype),)


def _overwrite_backward(_: Call, grad: Tensor | None) -> Grads:
    return (grad,)


def _where_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return tuple(grad.tape.empty(grad.shape, grad.dtype) if wanted else None for wanted in call.needs)


def _assign_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    # the gradient is copied whole, the part cloned for the value's gradient, and the part zeroed for what was there before
    whole = grad.tape.empty(grad.shape, grad.dtype)
    part = grad.tape.empty(call.context, grad.dtype)
    zeros = grad.tape.empty(call.context, grad.dtype) if call.needs[0] else None
    del zeros
    return (whole if call.needs[0] else None, part)
