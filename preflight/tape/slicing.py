"""Stretches of every sample's tokens: with one sample their bytes lie together, with several a matrix product copies them first."""

from __future__ import annotations

from collections.abc import Sequence

from preflight.tape.dtypes import BYTES, promote
from preflight.tape.meter import Size, rounded
from preflight.tape.tensor import Call, Grads, Shape, Storage, Tensor, numel


class Slice(Tensor):
    """A view of some tokens (the second dimension) of every sample."""

    __slots__ = ()

    def view(self, *shape: Size) -> Slice:
        return as_slice(super().view(*shape))


def slice_tokens(x: Tensor, tokens: Size) -> Slice:
    """`x[:, a:b]` of so many tokens; its gradient is a zero tensor of x's size with the part copied in (slice_backward)."""
    out = Slice(x.tape, (x.shape[0], tokens, *x.shape[2:]), x.dtype, x.storage)
    x.tape.record((x,), out, _whole_backward, context=x.shape)
    return out


def split_tokens(x: Tensor, tokens: Sequence[Size]) -> tuple[Slice, ...]:
    """`x.split(tokens, dim=1)`; the gradients are put together in one new tensor (split_with_sizes_backward)."""
    first, *more = (Slice(x.tape, (x.shape[0], n, *x.shape[2:]), x.dtype, x.storage) for n in tokens)
    x.tape.record((x,), first, _whole_backward, context=x.shape, more=more)
    return (first, *more)


def cat_tokens(tensors: Sequence[Tensor]) -> Tensor:
    """One new tensor with the tokens of all; the gradients are slices of it."""
    first, *others = tensors
    total, dtype = first.shape[1], first.dtype
    for x in others:
        total, dtype = total + x.shape[1], promote(dtype, x.dtype)
    shape = (first.shape[0], total, *first.shape[2:])
    return first.tape.compute(tensors, _cat_backward, shape, dtype, context=[x.shape for x in tensors])


def adjacent(x: Tensor) -> Tensor:
    """`x.contiguous()`: a copy of a slice if there are several samples, the same bytes if there is one."""
    if not isinstance(x, Slice):
        return x
    tape, source = x.tape, x.storage
    assert source is not None
    several = x.shape[0] > 1
    # With one sample the copy is empty and the source stays as long as either is used; with several it goes its own way. Sizes
    # may be arrays, so that both happen at once: the source's bytes are split by `several` between it and what they share.
    if source.shared is None:
        shared = source.nbytes * (1 - several)
        source.nbytes = source.nbytes - shared
        tape.meter.free(shared)
        source.shared = Storage(tape.meter, shared)
        source.shared.copies = source.copies
    copy = Storage(tape.meter, rounded(numel(x.shape) * BYTES[x.dtype]) * several)
    copy.shared = source.shared
    out = Tensor(tape, x.shape, x.dtype, copy)
    return tape.record((x,), out, _pass_backward)


def as_slice(x: Tensor) -> Slice:
    """The same tensor, said to be a slice."""
    out = Slice(x.tape, x.shape, x.dtype, x.storage)
    out.node, out.index, out.requires_grad = x.node, x.index, x.requires_grad
    return out


def _whole_backward(call: Call, *grads: Tensor | None) -> Grads:
    some = next(grad for grad in grads if grad is not None)
    return (some.tape.empty(call.context, some.dtype),)


def _cat_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    parts: list[tuple[Shape, bool]] = list(zip(call.context, call.needs, strict=True))
    return tuple(as_slice(grad.view(*shape)) if wanted else None for shape, wanted in parts)


def _pass_backward(_: Call, grad: Tensor | None) -> Grads:
    return (grad,)
