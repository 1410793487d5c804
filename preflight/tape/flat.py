"""Fully sharded parameters in the first form, FullyShardedDataParallel: the parameters of a unit are one flat one.

torch/distributed/fsdp: _flat_param.py (its sizes, unshard, reshard) and _runtime_utils.py (the hooks, the prefetch, the reduction).
A unit that trains at all has gradients of all its parameters, frozen ones too: they are views of the flat one, which wants a
gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from preflight.tape.dtypes import BYTES
from preflight.tape.meter import rounded
from preflight.tape.module import Module
from preflight.tape.sharding import Sharding, Unit
from preflight.tape.tensor import Parameter, Storage, Tape

ADDRESS = 16  # bytes each parameter begins at a multiple of (_flat_param.py: _get_aligned_numel)
Prefetch = Literal["pre", "post", "none"]


def flattened(sizes: Iterable[int], dtype: str) -> tuple[list[int], int]:
    """Where each part of a flat parameter begins, in elements, and where the last one ends (_init_flat_param_and_metadata)."""
    step, starts, end = ADDRESS // BYTES[dtype], [], 0
    for size in sizes:
        starts.append(-(-end // step) * step)
        end = starts[-1] + size
    return starts, end


def flat_numel(sizes: Iterable[int], ranks: int, dtype: str) -> int:
    """Elements of a flat parameter of such parts, which is a multiple of the ranks."""
    return -(-flattened(sizes, dtype)[1] // ranks) * ranks


class Flat(Sharding):
    """The state of one walk; `prefetch` says when a unit's backward pass has the next one gathered, `ahead` the forward pass's."""

    def __init__(
        self,
        tape: Tape,
        network: Module,
        ranks: int,
        *,
        reshard: bool = True,
        compute: str | None = None,
        reduce: str | None = None,
        offload: bool = False,
        whole_gradients: bool = False,
        one_unit: bool = False,
        prefetch: Prefetch = "pre",
        ahead: bool = False,
    ) -> None:
        self.prefetch, self.ahead, self.network = prefetch, ahead, network
        super().__init__(
            tape,
            network,
            ranks,
            reshard=reshard,
            compute=compute,
            reduce=reduce,
            offload=offload,
            whole_gradients=whole_gradients,
            one_unit=one_unit,
        )

    def unit(self, parameters: Sequence[Parameter]) -> Unit:
        return FlatUnit(self, parameters)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """As in the second form, with every parameter of a unit that trains wanting a gradient."""
        frozen = [p for unit in self.units.values() if unit.trains for p in unit.parameters if not p.requires_grad]
        for parameter in frozen:
            parameter.requires_grad = True
        try:
            with super().computing():
                yield
        finally:
            for parameter in frozen:
                parameter.requires_grad, parameter.grad = False, None


class FlatUnit(Unit):
    """One flat parameter (_flat_param.py: FlatParamHandle)."""

    sharding: Flat

    def __init__(self, sharding: Flat, parameters: Sequence[Parameter]) -> None:
        super().__init__(sharding, parameters)
        self.stored = sharding.stored[parameters[0]] if parameters else "fp32"
        self.dtype = sharding.cast_dtype(self.stored)
        self.further: Storage | None = None
        self.numel = flat_numel((p.numel for p in parameters for _ in range(self.times(p))), sharding.ranks, self.dtype)

    @property
    def wide(self) -> str:
        """The dtype gradients are reduced in."""
        return self.sharding.reduce or self.dtype

    @property
    def is_root(self) -> bool:
        return self is next(iter(self.sharding.units.values()))

    def run(self, function: Callable[..., Any], arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """Call `function` between _pre_forward and _post_forward."""
        if self.backward_begun:  # "For `fully_shard` + `checkpoint`, skip pre-forward logic in the recomputed forward"
            return function(*arguments, **options)
        sharding = self.sharding
        arguments, options = sharding.arguments((arguments, dict(options)))
        self.unshard()
        if sharding.ahead:
            self._next().unshard(ahead=True)
        arguments, options = self.watch_inputs((arguments, options))
        out = function(*arguments, **options)
        frame = sharding.tape.frame
        if frame is None or not frame.replaying:
            if sharding.reshard and not self.is_root:
                self.whole = None
            self.index = len(sharding.order)
            sharding.order.append(self)
        return self.watch_outputs(out)

    def unshard(self, *, ahead: bool = False) -> None:
        """pre_unshard casts the shard, unshard gathers, post_unshard frees the cast shard; `ahead` in another unit's time."""
        if self.whole is not None:
            return
        meter, cast = self.sharding.tape.meter, self.dtype != self.stored
        alone = self.sharding.ranks == 1
        moved = Storage(meter, rounded(self.numel // self.sharding.ranks * BYTES[self.dtype]) if cast and not alone else 0)
        self.whole = Storage(meter, 0 if alone and not cast else rounded(self.numel * BYTES[self.dtype]))
        if not ahead:
            self.whole.keep()
        del moved

    def pre_backward(self) -> None:
        """_pre_backward_hook: gather again if freed, and the unit that ran before this one.

        With the forward pass's prefetch traces show one more on its way, as a checkpoint's second forward pass asks for it too.
        """
        if self.backward_begun:
            return
        self.backward_begun = True
        self.unshard()
        if self.sharding.prefetch == "pre":
            self._before()
            if self.sharding.ahead and self.index > 0:
                self.further = Storage(self.sharding.tape.meter, rounded(self.numel * BYTES[self.dtype]))

    def post_backward(self) -> None:
        """The views' gradients put together in one (split_with_sizes_backward, with zeros for those that have none), then
        _post_backward_hook: free the parameters, cast the gradient, reduce it, keep this rank's part.
        """
        if self.backward_done:
            return
        self.backward_done = True
        if self.trains:
            flat = self._flattened()
        self.whole = self.further = None
        if self.sharding.prefetch == "post":
            self._before()
        if not self.trains:
            return
        meter, ranks = self.sharding.tape.meter, self.sharding.ranks
        wide = Storage(meter, rounded(self.numel * BYTES[self.wide])) if self.wide != self.dtype else None
        reduced = Storage(meter, rounded(self.numel // ranks * BYTES[self.wide]))
        del flat, wide
        if self.wide != self.stored:
            reduced = Storage(meter, rounded(self.numel // ranks * BYTES[self.stored]))
        if self.sharding.whole_gradients:
            self.gradient = None
        if self.gradient is None and not self.sharding.offload:
            self.gradient = reduced
            reduced.keep(gradient=True)

    def keep_gradient(self) -> None:
        if not self.trains:
            return
        whole = self.sharding.whole_gradients
        nbytes = self.numel * BYTES[self.dtype] if whole else self.numel // self.sharding.ranks * BYTES[self.stored]
        self.gradient = Storage(self.sharding.tape.meter, rounded(nbytes) * self.copies)
        self.gradient.keep(gradient=True)

    def _flattened(self) -> Storage:
        meter = self.sharding.tape.meter
        zeros = [Storage(meter, rounded(p.numel * BYTES[self.dtype]) * self.times(p)) for p in self.parameters if p.grad is None]
        flat = Storage(meter, rounded(self.numel * BYTES[self.dtype]))
        zeros.clear()
        for parameter in self.parameters:
            parameter.grad = None
        return flat

    def _next(self) -> FlatUnit:
        units = [unit for unit in self.sharding.units.values() if isinstance(unit, FlatUnit)]
        return units[min(units.index(self) + 1, len(units) - 1)]

    def _before(self) -> None:
        before = self.sharding.order[self.index - 1] if self.index > 0 else None
        if isinstance(before, FlatUnit) and not before.backward_begun:  # _needs_pre_backward_unshard
            before.unshard(ahead=True)
