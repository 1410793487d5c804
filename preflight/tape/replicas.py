"""The first GPU of torch.nn.DataParallel: it has every replica's output and loss, and its gradients twice for a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from preflight.tape.meter import Size
from preflight.tape.module import Module
from preflight.tape.parallel import Parallel
from preflight.tape.tensor import Call, Grads, Parameter, Storage, Tape, Tensor


class Replicas(Parallel):
    """`count` replicas; the network's inputs are this GPU's share of the batch (torch/nn/parallel/data_parallel.py).

    Its own replica shares the module's weights (torch/csrc/cuda/comm.cpp: broadcast_coalesced hands the source's tensors on).
    """

    def __init__(self, tape: Tape, network: Module, parameters: Iterable[Parameter], count: int) -> None:
        self.tape, self.network, self.parameters, self.count = tape, network, tuple(parameters), count

    def around(self, module: Module, run: Callable[..., Any]) -> Callable[..., Any]:
        """`run`, and where it is the whole network its output gathered."""
        if module is not self.network:
            return run
        return lambda *arguments, **options: self._gathered(run(*arguments, **options))

    def finish(self) -> None:
        """ReduceAddCoalesced sums the replicas' gradients into new ones, while this replica's are still there (_functions.py)."""
        found = [p.grad for p in self.parameters if p.grad is not None]
        summed = [Storage(self.tape.meter, g.storage.nbytes * g.storage.copies) for g in found if g.storage is not None]
        summed.clear()

    def _gathered(self, out: Any) -> Any:
        if isinstance(out, tuple | list):
            return tuple(self._gathered(x) for x in out)
        if not isinstance(out, Tensor):
            return out
        shape: tuple[Size, ...] = (out.shape[0] * self.count, *out.shape[1:])
        return self.tape.compute((out,), _gather_backward, shape, out.dtype, context=out.shape)


def _gather_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad.view(*call.context),)  # Scatter: this GPU's chunk is a view
