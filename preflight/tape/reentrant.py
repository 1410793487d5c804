"""Reentrant activation checkpointing (torch/utils/checkpoint.py: CheckpointFunction, with use_reentrant=True).

The forward runs without gradients and keeps its arguments. The backward pass runs the function again on detached arguments, to its
very end, and then a backward pass of its own through it, during which the result and its gradient stay.

The first argument (the hidden state) has to want a gradient, else nothing inside would train: where no weight before it trains,
trainers mark it themselves (transformers' enable_input_require_grads; diffusion-pipe's initial layers), and so it is here.

Where the tape sends inputs away this is the `Unsloth_Offloaded_Gradient_Checkpointer` of tdrussell/diffusion-pipe
utils/unsloth_utils.py: it is reentrant too. Under save_on_cpu every argument goes away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from preflight.tape.away import Away
from preflight.tape.backward import backward_through
from preflight.tape.tensor import Call, Grads, Node, Tensor


class _Again(NamedTuple):
    """What running the function again takes besides its arguments, and the form of its results."""

    function: Callable[..., Any]
    autocast: str | None
    results: tuple[tuple[tuple[Any, ...], str], ...]


def reentrant(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)`, keeping its arguments in place of what it would save."""
    first = next(x for x in arguments if isinstance(x, Tensor))
    tape = first.tape
    if not first.requires_grad:
        _begin_graph(first, [])
    with tape.no_grad():
        out = function(*arguments)
    results = out if isinstance(out, tuple) else (out,)
    kept = tuple(Away(x) if isinstance(x, Tensor) and _leaves(x, first) else x for x in arguments)
    again = _Again(function, tape.autocast, tuple((x.shape, x.dtype) for x in results))
    inputs = [x if isinstance(x, Tensor) else None for x in arguments]
    tape.record(inputs, results[0], _backward, saved=kept, context=again, more=results[1:])
    return out


def _leaves(x: Tensor, first: Tensor) -> bool:
    return x.tape.sends_inputs_away and (x is first or x.tape.sends_every_input)


def _backward(call: Call, *grads: Tensor | None) -> Grads:
    again: _Again = call.context
    tape = next(x for x in grads if x is not None).tape
    # custom functions are handed zeros for results whose gradient nobody asked for (materialize_grads)
    given = [tape.empty(*form) if grad is None else grad for grad, form in zip(grads, again.results, strict=True)]
    found: list[list[Tensor]] = [[] for _ in call.saved]
    detached = [_detached(x, wanted, into) for x, wanted, into in zip(call.saved, call.needs, found, strict=True)]
    grad_enabled, tape.grad_enabled = tape.grad_enabled, True
    try:
        with tape.autocasting(again.autocast):
            out = again.function(*detached)
    finally:
        tape.grad_enabled = grad_enabled
    backward_through(out if isinstance(out, tuple) else (out,), given)
    return tuple(into[0] if into else None for into in found)


def _detached(x: Any, wanted: bool, into: list[Tensor]) -> Any:
    if not isinstance(x, Tensor | Away):
        return x
    own = x.detach_like()
    own.requires_grad = False
    if wanted:
        _begin_graph(own, into)
    return own


def wanting_gradient(x: Tensor) -> Tensor:
    """x.requires_grad_(): x as a leaf. The graph keeps it, and then its gradient (AccumulateGrad)."""
    _begin_graph(x, [x.detach()])
    return x


def _begin_graph(x: Tensor, into: list[Tensor]) -> None:
    """Make x a leaf that wants a gradient, which goes `into` the list."""
    x.requires_grad, x.node, x.index = True, Node(x.tape.count(), (), _take, into, 1, x.tape.meter.segment), 0


def _take(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    call.context.append(grad)
    return ()
