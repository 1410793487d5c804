"""Fully sharded parameters: what is gathered before a block runs, freed after it, and reduced behind it.

torch/distributed/fsdp/_fully_shard, FSDP2: _fsdp_state.py (the hooks), _fsdp_param_group.py (unshard, wait_for_unshard, reshard,
post_backward, the prefetch of the backward pass) and _fsdp_collectives.py (foreach_all_gather, foreach_reduce). Each repeated block
is a unit, and so is what remains of the network: its root; or all of it is one unit, where nobody says what a block is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from preflight.tape.dtypes import BYTES
from preflight.tape.meter import Meter, rounded
from preflight.tape.module import Blocks, Module
from preflight.tape.parallel import Parallel
from preflight.tape.quantized import Quantized
from preflight.tape.slicing import Slice, as_slice
from preflight.tape.tensor import Buffer, Call, Grads, Parameter, Storage, Tape, Tensor

# streams beside the step's own, whose memory no other is given (_fsdp_param_group.py: FSDPCommContext.lazy_init)
GATHERING, REDUCING = 1, 2

_FLOATING = frozenset({"fp16", "bf16", "fp32", "fp64"})


def padded(parameter: Parameter, ranks: int) -> int:
    """Elements of the parameter on all ranks together: each holds an equal number of rows (_fsdp_param.py: _init_sharded_param)."""
    rows = int(parameter.shape[0]) if parameter.shape else 1
    return -(-rows // ranks) * ranks * (parameter.numel // rows)


class Sharding(Parallel):
    """The state that all units of one walk share (_fsdp_param_group.py: FSDPCommContext).

    `compute` is the dtype parameters are gathered in and `reduce` the one gradients are reduced in (MixedPrecisionPolicy); None
    leaves them as they are. With `reshard` a unit's parameters are freed after its forward and gathered again for its backward.
    With `offload` the shards and their gradients are in host memory (CPUOffloadPolicy). With `whole_gradients` the micro-batches
    before the last leave theirs whole, in the dtype they will be reduced in (set_requires_gradient_sync(False)). Where it is the
    `one_unit`, the network is gathered and reduced at once. Parameters in `apart` are no part of it: every rank has them whole, in
    their own dtype.
    """

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
        apart: Collection[Parameter] = (),
    ) -> None:
        self.tape, self.ranks, self.reshard, self.offload = tape, ranks, reshard, offload
        self.whole_gradients, self.one_unit = whole_gradients, one_unit
        self.compute, self.reduce = compute, reduce
        self.apart = frozenset(apart)
        self.stored = {parameter: parameter.dtype for _, parameter in network.parameters() if parameter not in self.apart}
        blocks = [block for value in vars(network).values() if isinstance(value, Blocks) for _, block, _ in value.children()]
        inner: Mapping[Module, list[Parameter]] = {
            block: [p for _, p in block.parameters() if p in self.stored] for block in ([] if one_unit else blocks)
        }
        taken = {parameter for parameters in inner.values() for parameter in parameters}
        # as the network counts them: a block's own view of itself knows no copies
        root = [parameter for _, parameter in network.parameters() if parameter in self.stored and parameter not in taken]
        self.units = {network: self.unit(root), **{block: self.unit(parameters) for block, parameters in inner.items()}}
        self.order: list[Unit] = []  # post_forward_order
        self.gathered: Storage | None = None  # all_gather_state: the last gather's buffer, kept until the next one is copied out
        self.reducing: Storage | None = None  # reduce_scatter_states: the last reduction's input, kept until the next one

    def unit(self, parameters: Sequence[Parameter]) -> Unit:
        """Parameters that are gathered and reduced together."""
        return Unit(self, parameters)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Parameters in the dtype the step sees them in."""
        for parameter, dtype in self.stored.items():
            parameter.dtype = self.cast_dtype(dtype)
        try:
            yield
        finally:
            for parameter, dtype in self.stored.items():
                parameter.dtype = dtype

    def cast_dtype(self, dtype: str) -> str:
        """`dtype` after the mixed precision policy's cast, which is for floating-point tensors only."""
        return self.compute if self.compute is not None and dtype in _FLOATING else dtype

    def moves(self, parameter: Parameter) -> bool:
        """Whether the shard is copied before it is gathered: cast, or brought from host memory."""
        stored = self.stored[parameter]
        return self.offload or (stored != self.cast_dtype(stored) and not isinstance(parameter, Quantized))

    def around(self, module: Module, run: Callable[..., Any]) -> Callable[..., Any]:
        """`run` with the hooks of the module's unit before and after it."""
        unit = self.units.get(module)
        return run if unit is None else lambda *arguments, **options: unit.run(run, arguments, options)

    def finish(self) -> None:
        """_root_post_backward_final_callback: units whose inputs wanted no gradient are reduced now, the root first."""
        for unit in self.units.values():
            unit.post_backward()
            unit.buffer = None
        self.order.clear()
        self.reducing = None

    def keep_gradients(self, tape: Tape, parameters: Iterable[Parameter]) -> None:
        """Sharded gradients of the step before."""
        super().keep_gradients(tape, [parameter for parameter in parameters if parameter in self.apart])
        if self.offload:
            return
        for unit in self.units.values():
            unit.keep_gradient()

    def drop_gradients(self, parameters: Iterable[Parameter]) -> None:
        super().drop_gradients(parameters)
        for unit in self.units.values():
            unit.gradient = None

    def arguments(self, values: Any) -> Any:
        """_cast_forward_inputs: floating-point tensors in the dtype of the computation."""
        return _mapped(values, lambda x: x.to(self.cast_dtype(x.dtype)))


class Unit:
    """Parameters that are gathered and reduced together (_fsdp_param_group.py: FSDPParamGroup)."""

    def __init__(self, sharding: Sharding, parameters: Sequence[Parameter]) -> None:
        self.sharding, self.parameters = sharding, parameters
        self.trains = any(p.requires_grad for p in parameters)
        self.buffer: Storage | None = None  # _all_gather_result: gathered, not yet copied out
        self.whole: Storage | None = None  # the unsharded parameters
        self.gradient: Storage | None = None  # this rank's part
        self.backward_begun = self.backward_done = False
        self.index = 0
        ranks, stored = sharding.ranks, sharding.stored
        each = [p for p in parameters for _ in range(self.times(p))]
        sizes = [(_bytes(p, padded(p, ranks), sharding.cast_dtype(stored[p])), p) for p in each]
        self._moved = sum(n for n, p in sizes if sharding.moves(p)) // ranks
        self._gathered = sum(n for n, _ in sizes)
        self._whole = sum(rounded(n) for n, _ in sizes)

    @property
    def copies(self) -> int:
        """How many units it stands for."""
        return 1 if self.sharding.one_unit else self.parameters[0].copies

    def times(self, parameter: Parameter) -> int:
        """How many of the unit's parameters this one stands for."""
        return parameter.copies if self.sharding.one_unit else 1

    def run(self, function: Callable[..., Any], arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """Call `function` between the hooks of _fsdp_state.py, _pre_forward and _post_forward."""
        sharding = self.sharding
        arguments, options = sharding.arguments((arguments, dict(options)))
        if self.backward_begun:  # a checkpoint runs it again: the backward's hooks gather and free
            self.unshard()
            self.wait(forward=False)
            return function(*arguments, **options)
        self.unshard()
        self.wait(forward=True)
        arguments, options = self.watch_inputs((arguments, options))
        out = function(*arguments, **options)
        frame = sharding.tape.frame
        replaying = frame is not None and frame.replaying
        if not replaying:
            if sharding.reshard:
                self.whole = None
            self.index = len(sharding.order)
            sharding.order.append(self)
        out = self.watch_outputs(out)
        if replaying or self is next(iter(sharding.units.values())):  # iter_forward_root: who began this forward pass
            sharding.gathered = None
        return out

    def unshard(self) -> None:
        """foreach_all_gather: the shards cast into one buffer, gathered into another."""
        if self.buffer is not None or self.whole is not None:
            return
        alone, meter = self.sharding.ranks == 1, self.sharding.tape.meter
        shards = _aside(meter, 0 if alone else rounded(self._moved), GATHERING)
        self.buffer = _aside(meter, 0 if alone else rounded(self._gathered), GATHERING)
        del shards

    def wait(self, *, forward: bool) -> None:
        """wait_for_unshard: copy out into the parameters; the forward pass keeps the buffer until the next unit's copy."""
        if self.buffer is None:
            return
        sharding = self.sharding
        if forward:
            sharding.gathered = None
        self.whole = Storage(sharding.tape.meter, self._whole)
        self.whole.keep()
        if forward and sharding.ranks > 1:
            sharding.gathered = self.buffer
        self.buffer = None

    def pre_backward(self) -> None:
        """Gather again if freed, then prefetch the unit that ran before this one (_backward_prefetch)."""
        if self.backward_begun:
            return
        self.backward_begun = True
        self.unshard()
        self.wait(forward=False)
        if self.index > 0:
            self.sharding.order[self.index - 1].unshard()

    def post_backward(self) -> None:
        """Free the parameters, reduce their gradients (foreach_reduce) and keep this rank's part in the stored dtype."""
        if self.backward_done:
            return
        self.backward_done = True
        sharding, meter = self.sharding, self.sharding.tape.meter
        found = [p for p in self.parameters if p.grad is not None]
        self.whole = sharding.reducing = None
        if not found:
            return
        elements = sum(padded(p, sharding.ranks) * self.times(p) for p in found)
        wide = sharding.reduce or found[0].dtype
        sharding.reducing = Storage(meter, rounded(elements * BYTES[wide]))
        for parameter in found:
            parameter.grad = None
        reduced = _aside(meter, rounded(elements // sharding.ranks * BYTES[wide]), REDUCING)
        stored = sharding.stored[found[0]]
        if stored != wide:
            reduced = _aside(meter, rounded(elements // sharding.ranks * BYTES[stored]), REDUCING)
        if sharding.whole_gradients:
            self.gradient = None
        if self.gradient is None and not sharding.offload:
            self.gradient = reduced
            reduced.keep(gradient=True)

    def keep_gradient(self) -> None:
        trained = [p for p in self.parameters if p.requires_grad]
        if trained:
            sharding = self.sharding
            elements = sum(padded(p, sharding.ranks) * self.times(p) for p in trained)
            stored = sharding.stored[trained[0]]
            if sharding.whole_gradients:  # _fsdp_param.py: to_accumulated_grad_if_needed
                nbytes = rounded(elements * BYTES[sharding.reduce or sharding.cast_dtype(stored)])
            else:
                nbytes = rounded(elements // sharding.ranks * BYTES[stored])
            self.gradient = Storage(sharding.tape.meter, nbytes * self.copies)
            self.gradient.keep(gradient=True)

    def watch_inputs(self, values: Any) -> Any:
        """RegisterPostBackwardFunction: one node through which every input's gradient leaves the unit."""
        found: list[Tensor] = []
        _mapped(values, found.append, changed=False)
        inputs = [x for x in found if x.requires_grad]
        if not inputs or not self.sharding.tape.grad_enabled:
            return values
        first, *more = map(_alias, inputs)
        self.sharding.tape.record(inputs, first, _post_backward, context=self, more=more)
        out = dict(zip(map(id, inputs), (first, *more), strict=True))
        return _mapped(values, lambda x: out.get(id(x), x))

    def watch_outputs(self, values: Any) -> Any:
        """Every tensor in `values` begins the unit's backward pass."""
        return _mapped(values, self._watch_output)

    def _watch_output(self, x: Tensor) -> Tensor:
        """_register_pre_backward_hook: the first gradient that reaches an output begins the unit's backward pass."""
        return self.sharding.tape.record((x,), _alias(x), _pre_backward, context=self) if x.requires_grad else x


def _aside(meter: Meter, nbytes: int, stream: int) -> Storage:
    """Memory that is asked for on a stream beside the step's own."""
    storage = Storage(meter, nbytes)
    meter.aside(storage.block, stream)
    return storage


def _bytes(parameter: Parameter, elements: int, dtype: str) -> int:
    """Quantised weights are gathered as they are kept."""
    return int(elements * parameter.form.bits / 8) if isinstance(parameter, Quantized) else elements * BYTES[dtype]


def _alias(x: Tensor) -> Tensor:
    return as_slice(x.detach()) if isinstance(x, Slice) else x.detach()


def _pre_backward(call: Call, grad: Tensor | None) -> Grads:
    call.context.pre_backward()
    return (grad,)


def _post_backward(call: Call, *grads: Tensor | None) -> Grads:
    call.context.post_backward()
    return grads


def _mapped(values: Any, function: Callable[[Tensor], Any], *, changed: bool = True) -> Any:
    """`values` with every tensor in it replaced by `function` of it; parameters are not inputs."""
    if isinstance(values, Tensor) and not isinstance(values, Parameter | Buffer):
        result = function(values)
        return result if changed else values
    if isinstance(values, tuple | list):
        return tuple(_mapped(value, function, changed=changed) for value in values)
    if isinstance(values, dict):
        return {name: _mapped(value, function, changed=changed) for name, value in values.items()}
    return values
