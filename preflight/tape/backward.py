"""The reverse walk: nodes in the order torch's engine takes them, gradients made and dropped when it does.

torch/csrc/autograd/engine.cpp: ready nodes run from the newest to the oldest; a node's incoming gradients live until its results
have been brought to the shape and dtype of its inputs (validate_outputs), then its saved tensors are released.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Sequence

from preflight.tape.meter import Segment
from preflight.tape.tensor import Call, Edge, Node, Parameter, Tape, Tensor

Pending = dict[int, list[Tensor | None]]  # gradients that wait for a node, by its number

_OWN_REFERENCES = 3  # the gradient's own, the local variable's, and getrefcount's argument


def backward(loss: Tensor) -> None:
    """Fill `grad` of every parameter that `loss` depends on; everything else that the step made is dropped on the way."""
    tape, root = loss.tape, loss.node
    assert root is not None, "nothing to train: no parameter wants a gradient"
    tape.parallel.begin()
    pending: Pending = {root.number: [tape.empty(loss.shape, loss.dtype)]}
    nodes = {root.number: root}
    del loss, root
    with tape.no_grad():
        _walk(tape, pending, nodes)
        tape.meter.begin(Segment())
        tape.parallel.finish()


def backward_through(outputs: Sequence[Tensor], grads: Sequence[Tensor]) -> None:
    """torch.autograd.backward(outputs, grads) inside a backward pass: the caller's tensors stay until it is over."""
    tape = outputs[0].tape
    pending: Pending = {}
    nodes: dict[int, Node] = {}
    for output, grad in zip(outputs, grads, strict=True):
        node = output.node
        if node is not None:
            nodes[node.number] = node
            pending.setdefault(node.number, [None] * node.outputs)[output.index] = grad
    _walk(tape, pending, nodes)


def _walk(tape: Tape, pending: Pending, nodes: dict[int, Node]) -> None:
    """Run every node that the pending gradients lead to."""
    queue = [-number for number in nodes]
    heapq.heapify(queue)
    while queue:
        number = -heapq.heappop(queue)
        node = nodes.pop(number)
        if node.segment is not tape.meter.segment:
            tape.meter.begin(node.segment)
        results = _call(node, pending.pop(number))
        node.saved, node.frame = (), None
        edges = node.edges
        del node
        results.reverse()
        for edge in edges:
            result = results.pop()
            if edge is None or result is None:
                continue
            if isinstance(edge.target, Parameter):
                accumulate(edge.target, result)
                continue
            target = edge.target.number
            if target not in pending:
                pending[target] = [None] * edge.target.outputs
                nodes[target] = edge.target
                heapq.heappush(queue, -target)
            buffer = pending[target]
            buffer[edge.output] = result if buffer[edge.output] is None else _sum(buffer[edge.output])
            del result, buffer


def accumulate(parameter: Parameter, gradient: Tensor) -> None:
    """torch/csrc/autograd/functions/accumulate_grad.h: the first gradient is taken as it is, later ones are added in place.

    One whose strides are not the parameter's is copied into those (utils/grad_layout_contract.h).
    """
    if parameter.grad is not None:
        return
    storage = gradient.storage
    assert storage is not None
    # where somebody else still uses these bytes, or they lie in another order, the parameter gets its own
    if parameter.gradient_strided or sys.getrefcount(storage) > _OWN_REFERENCES:
        gradient = gradient.contiguous()
        storage = gradient.storage
        assert storage is not None
    parameter.grad = gradient.detach()
    storage.keep(gradient=True)
    del gradient, storage
    parameter.tape.parallel.accumulated(parameter)


def _call(node: Node, grads: list[Tensor | None]) -> list[Tensor | None]:
    saved = node.frame.recover(node.slot) if node.frame is not None and node.slot is not None else node.saved
    call = Call(saved, tuple(edge is not None for edge in node.edges), node.context)
    results = node.backward(call, *grads)
    return [_fit(edge, grad) for edge, grad in zip(node.edges, results, strict=True)]


def _fit(edge: Edge | None, grad: Tensor | None) -> Tensor | None:
    """`grad` summed over broadcast dimensions and cast, as engine.cpp: validate_outputs does."""
    if edge is None or grad is None:
        return None
    if _was_broadcast(edge.shape, grad.shape):
        grad = grad.tape.empty(edge.shape, grad.dtype)
    # a handle of its own for each input, so that a storage's references tell how many inputs share it
    return grad.detach() if grad.dtype == edge.dtype else grad.to(edge.dtype)


def _was_broadcast(shape: tuple[object, ...], grown: tuple[object, ...]) -> bool:
    if len(shape) != len(grown):
        return True
    for a, b in zip(shape, grown, strict=True):  # a generator would take twice as long, and every gradient asks
        if a is not b and isinstance(a, int) and a == 1 and not (isinstance(b, int) and b == 1):
            return True
    return False


def _sum(first: Tensor | None) -> Tensor:
    """input_buffer.cpp: accumulate. Out of place, as traces count it; a GPU reuses the first operand when nothing else does."""
    assert first is not None
    return first.tape.empty(first.shape, first.dtype)
