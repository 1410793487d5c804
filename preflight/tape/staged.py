"""One pipeline stage's step: what the blocks are given, which is what stages send each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from preflight.tape.dtypes import BYTES
from preflight.tape.meter import Size, rounded
from preflight.tape.module import Module
from preflight.tape.parallel import Parallel
from preflight.tape.tensor import Parameter, Tape, Tensor, numel


class Staged(Parallel):
    """`inner` goes on as it would, while `handed` becomes the bytes that a block of `network` is called with."""

    def __init__(self, network: Module, inner: Parallel) -> None:
        self.network, self.inner = network, inner
        self.handed: Size | None = None

    def around(self, module: Module, run: Callable[..., Any]) -> Callable[..., Any]:
        """`run`, and where it is a block its arguments measured."""
        run = self.inner.around(module, run)
        return run if module is self.network else lambda *arguments, **options: self._measured(run, arguments, options)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """As the inner one."""
        with self.inner.computing():
            yield

    def begin(self) -> None:
        self.inner.begin()

    def accumulated(self, parameter: Parameter) -> None:
        self.inner.accumulated(parameter)

    def finish(self) -> None:
        self.inner.finish()

    def keep_gradients(self, tape: Tape, parameters: Iterable[Parameter]) -> None:
        self.inner.keep_gradients(tape, parameters)

    def drop_gradients(self, parameters: Iterable[Parameter]) -> None:
        self.inner.drop_gradients(parameters)

    def _measured(self, run: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if self.handed is None:
            self.handed = sum(rounded(numel(x.shape) * BYTES[x.dtype]) for x in _tensors((*arguments, *options.values())))
        return run(*arguments, **options)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, tuple | list):
            yield from _tensors(value)
        elif isinstance(value, Tensor) and not isinstance(value, Parameter):
            yield value
