"""What a form of parallelism does around the modules of a walk and with the gradients it leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from preflight.tape.module import Module
    from preflight.tape.tensor import Parameter, Tape


class Parallel:
    """One rank's view of a step; this one is alone, or its peers cost nothing during the step."""

    def around(self, module: Module, run: Callable[..., Any]) -> Callable[..., Any]:
        """`run`, which calls `module`, with whatever has to happen before and after it."""
        del module
        return run

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The stretch in which parameters have the dtype that the step sees them in."""
        yield

    def begin(self) -> None:
        """The backward pass begins."""

    def accumulated(self, parameter: Parameter) -> None:
        """A parameter's gradient has been written (torch's post-accumulate hooks)."""

    def finish(self) -> None:
        """The backward pass is over."""

    def keep_gradients(self, tape: Tape, parameters: Iterable[Parameter]) -> None:
        """Lay down the gradients that the step before left."""
        for parameter in parameters:
            keep_gradient(tape, parameter)

    def drop_gradients(self, parameters: Iterable[Parameter]) -> None:
        """zero_grad(set_to_none=True)."""
        for parameter in parameters:
            parameter.grad = None


def keep_gradient(tape: Tape, parameter: Parameter) -> None:
    """A gradient of the parameter's own size and dtype, for all that it stands for."""
    from preflight.tape.tensor import Storage, Tensor

    storage = Storage(tape.meter, parameter.nbytes * parameter.copies)
    storage.keep(gradient=True)
    parameter.grad = Tensor(tape, (parameter.numel,), parameter.dtype, storage)
