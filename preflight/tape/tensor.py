"""Tensors, their storages, and the graph that remembers what the backward pass will need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from preflight.tape.dtypes import BYTES, promote
from preflight.tape.meter import Meter, Segment, Size, rounded
from preflight.tape.parallel import Parallel
from preflight.tape.sharing import Sharing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from preflight.tape.checkpoint import Frame, Slot
    from preflight.tape.flops import Flops

Shape = tuple[Size, ...]
Number = int | float
Attention = Literal["flash", "efficient", "math"]
Grads = tuple["Tensor | None", ...]
Backward = Callable[..., Grads]


def numel(shape: Shape) -> Size:
    return prod(shape)


class Storage:
    """A block of memory: counted when made, uncounted when nothing refers to it any more."""

    __slots__ = ("block", "copies", "is_gradient", "meter", "nbytes", "shared")

    def __init__(self, meter: Meter, nbytes: Size) -> None:
        self.meter, self.nbytes = meter, nbytes
        self.shared: Storage | None = None  # bytes that another storage keeps as well (slicing.py: adjacent)
        self.copies, self.is_gradient = 1, False
        self.block = meter.allocate(nbytes)  # where it lies, for a meter that keeps track of that

    def keep(self, *, gradient: bool = False) -> None:
        """Mark as kept beyond its segment in each of the segment's copies: a parameter's gradient or its autocast copy."""
        self.copies = self.meter.segment.copies
        if gradient and not self.is_gradient:
            self.is_gradient = True
            self.meter.gradients = self.meter.gradients + self.nbytes

    def __del__(self) -> None:
        # Freed outside a repeated segment, what each copy kept goes at once; inside, the segment's extension counts the others.
        nbytes = self.nbytes * self.copies if self.meter.segment.copies == 1 else self.nbytes
        self.meter.free(nbytes)
        if self.block is not None:
            self.meter.release(self.block)
        if self.is_gradient:
            self.meter.gradients = self.meter.gradients - nbytes


class Edge(NamedTuple):
    """Where the gradient of one input goes, and the shape and dtype it must arrive in."""

    target: Node | Parameter
    output: int
    shape: Shape
    dtype: str


class Call(NamedTuple):
    """What a backward formula sees: the saved tensors, which inputs want a gradient, and whatever else the operator noted."""

    saved: tuple[Any, ...]
    needs: tuple[bool, ...]
    context: Any


class Node:
    """One recorded operator. It refers to its inputs' nodes, never to the inputs: only `saved` keeps tensors alive."""

    __slots__ = ("backward", "context", "edges", "frame", "number", "outputs", "saved", "segment", "slot")

    def __init__(
        self, number: int, edges: tuple[Edge | None, ...], backward: Any, context: Any, outputs: int, segment: Segment
    ) -> None:
        self.number, self.edges, self.backward, self.context = number, edges, backward, context
        self.outputs, self.segment = outputs, segment
        self.saved: tuple[Any, ...] = ()
        self.frame: Frame | None = None
        self.slot: Slot | None = None


class Tensor:
    """A shape and a dtype over a storage. Arithmetic follows torch: it promotes, broadcasts and records itself."""

    __slots__ = ("dtype", "index", "node", "requires_grad", "shape", "storage", "tape")

    def __init__(self, tape: Tape, shape: Shape, dtype: str, storage: Storage | None) -> None:
        self.tape, self.shape, self.dtype, self.storage = tape, shape, dtype, storage
        self.requires_grad = False
        self.node: Node | None = None
        self.index = 0

    # views share the storage and pass gradients on as they are

    def view(self, *shape: Size) -> Tensor:
        """The same bytes under another shape; also transposes and permutations, whose strides we do not follow."""
        out = Tensor(self.tape, shape, self.dtype, self.storage)
        return self.tape.record((self,), out, _view_backward, context=self.shape) if self.requires_grad else out

    def detach(self) -> Tensor:
        """The same storage, outside the graph."""
        return Tensor(self.tape, self.shape, self.dtype, self.storage)

    def detach_like(self) -> Tensor:
        """The same storage, outside the graph, still wanting a gradient if it did (checkpoint.py's recomputation)."""
        out = self.detach()
        out.requires_grad = self.requires_grad
        return out

    def to(self, dtype: str) -> Tensor:
        """Itself when it has that dtype, else a copy; the gradient is cast back."""
        return self if self.dtype == dtype else self.tape.compute((self,), _pass_backward, self.shape, dtype)

    def float(self) -> Tensor:
        return self.to("fp32")

    def type_as(self, other: Tensor) -> Tensor:
        return self.to(other.dtype)

    def contiguous(self) -> Tensor:
        """A copy: called where the original's strides force one."""
        return self._map(_pass_backward)

    # arithmetic; derivatives.yaml: add and sub save nothing, mul saves each operand that the other's gradient needs

    def __add__(self, other: Tensor | Number) -> Tensor:
        return self._meet(other, _add_backward) if isinstance(other, Tensor) else self._map(_pass_backward)

    def __sub__(self, other: Tensor) -> Tensor:
        return self._meet(other, _sub_backward)

    def __mul__(self, other: Tensor | Number) -> Tensor:
        if not isinstance(other, Tensor):
            return self._map(_scaled_backward)
        saved = (self if other.requires_grad else None, other if self.requires_grad else None)
        return self._meet(other, _mul_backward, saved)

    def __truediv__(self, _: Number) -> Tensor:
        return self._map(_scaled_backward)

    def __neg__(self) -> Tensor:
        return self._map(_scaled_backward)

    __radd__ = __add__

    def __iadd__(self, other: Tensor | Number) -> Tensor:  # noqa: PYI034  # a tensor, never a subclass of it
        """`x += y` in place: x keeps its memory, and both get the gradient as it is."""
        if not isinstance(other, Tensor):
            return self
        was = self.detach()
        was.node, was.index, was.requires_grad = self.node, self.index, self.requires_grad
        return self.tape.record((was, other), self, _add_backward)

    def _map(self, backward: Backward) -> Tensor:
        return self.tape.compute((self,), backward, self.shape, self.dtype)

    def _meet(self, other: Tensor, backward: Backward, saved: tuple[Tensor | None, ...] = ()) -> Tensor:
        shape, dtype = broadcast(self.shape, other.shape), promote(self.dtype, other.dtype)
        return self.tape.compute((self, other), backward, shape, dtype, saved=saved)


class Parameter(Tensor):
    """A tensor of the model: resident, so its own bytes are counted apart from the step's. `copies` says how many it stands for."""

    __slots__ = ("copies", "grad", "gradient_strided", "name")

    def __init__(self, shape: tuple[int, ...], dtype: str = "fp32") -> None:
        self.shape, self.dtype = shape, dtype
        self.storage, self.node, self.index = None, None, 0
        self.requires_grad = True
        self.grad: Tensor | None = None
        self.gradient_strided = False  # its gradient arrives in another order of dimensions (channels last)
        self.copies = 1
        self.name = ""

    @property
    def numel(self) -> int:
        """Elements of one copy."""
        return int(numel(self.shape))

    @property
    def nbytes(self) -> int:
        """Bytes of one copy as the allocator hands them out."""
        return int(rounded(self.numel * BYTES[self.dtype]))


class Buffer(Parameter):
    """A resident tensor that is neither trained nor counted as a parameter."""

    __slots__ = ()

    def __init__(self, shape: tuple[int, ...], dtype: str = "fp32") -> None:
        super().__init__(shape, dtype)
        self.requires_grad = False


class Tape:
    """The state of one walk: the meter, whether gradients are recorded, autocast and its cache, and the checkpoint around us.

    `attention` is the kernel that scaled_dot_product_attention finds; `sharing` how GPUs share each sample's tokens;
    `parallel` what its peers make it do besides.
    """

    def __init__(
        self,
        meter: Meter,
        *,
        attention: Attention = "flash",
        sharing: Sharing | None = None,
    ) -> None:
        self.meter = meter
        self.sharing = sharing or Sharing()
        self.attention: Attention = attention
        self.grad_enabled = True
        self.autocast: str | None = None
        self.attention_dtype: str | None = None
        self.norms = "composite"
        self.casts: dict[Parameter, Tensor] = {}
        self.frame: Frame | None = None
        self.parallel = Parallel()
        self.use_reentrant = False  # how checkpoints run again (reentrant.py)
        self.sends_inputs_away, self.away = False, 0  # whether checkpoints' inputs wait in host memory, and how many bytes do
        self.sends_every_input = False  # not the hidden state alone, where they do
        self.flops: Flops | None = None  # counts operations where somebody asks for them
        self._count = 0

    def count(self) -> int:
        """The next node's number."""
        self._count += 1
        return self._count

    def empty(self, shape: Shape, dtype: str) -> Tensor:
        """A new tensor of its own storage."""
        return Tensor(self, shape, dtype, Storage(self.meter, rounded(prod(shape) * BYTES[dtype])))

    def compute(
        self,
        inputs: Sequence[Tensor | None],
        backward: Backward,
        shape: Shape,
        dtype: str,
        *,
        saved: tuple[Any, ...] = (),
        rows: Sequence[tuple[Shape, str]] = (),
        keeps_result: bool = False,
        context: Any = None,
    ) -> Tensor:
        """A new tensor made from `inputs`; where one of them wants a gradient, what `backward` will need is kept.

        That is `saved` of the inputs, then the result itself if `keeps_result`, then further results of the kernel that only
        the backward sees (`rows`: shape and dtype of each).
        """
        wanted = self.grad_enabled and _some_want_gradients(inputs)
        late = keeps_result or bool(rows)
        # generated autograd code (VariableType) saves inputs before the kernel runs, results after it: a recomputation that has
        # enough with the inputs never makes the result
        if wanted and not late and self.frame is not None:
            self.frame.offer(saved)
        out = self.empty(shape, dtype)
        if late:
            kept = (out.detach(),) if keeps_result else ()
            saved = (*saved, *kept, *(self.empty(*row) for row in rows))
            if wanted and self.frame is not None:
                self.frame.offer(saved)
        return self._attach(inputs, out, backward, saved, context, ()) if wanted else out

    def record(
        self,
        inputs: Sequence[Tensor | None],
        out: Tensor,
        backward: Backward,
        saved: tuple[Any, ...] = (),
        *,
        context: Any = None,
        more: Sequence[Tensor] = (),
    ) -> Tensor:
        """Return `out` as the result of `inputs`; where one of them wants a gradient, keep `saved` for `backward`.

        For views and in-place operators; `more` are further outputs of the same operator, in order after `out`.
        """
        if not self.grad_enabled or not _some_want_gradients(inputs):
            return out
        if self.frame is not None:
            self.frame.offer(saved)
        return self._attach(inputs, out, backward, saved, context, more)

    def _attach(
        self,
        inputs: Sequence[Tensor | None],
        out: Tensor,
        backward: Backward,
        saved: tuple[Any, ...],
        context: Any,
        more: Sequence[Tensor],
    ) -> Tensor:
        out.requires_grad = True
        for x in more:
            x.requires_grad = True
        if self.frame is not None and self.frame.replaying:
            return out
        edges = tuple(
            Edge(x.node or x, x.index, x.shape, x.dtype) if x is not None and x.requires_grad else None  # type: ignore[arg-type]
            for x in inputs
        )
        node = Node(self.count(), edges, backward, context, 1 + len(more), self.meter.segment)
        if saved.count(None) < len(saved):
            if self.frame is not None:
                node.frame, node.slot = self.frame, self.frame.drop()
            else:
                node.saved = saved
        out.node, out.index = node, 0
        for index, x in enumerate(more, start=1):
            x.node, x.index = node, index
        return out

    @contextmanager
    def autocasting(self, dtype: str | None) -> Iterator[None]:
        """torch.autocast; leaving the outermost one drops the cached casts of parameters (autocast_mode.cpp: clear_cache)."""
        before, self.autocast = self.autocast, dtype
        try:
            yield
        finally:
            self.autocast = before
            if before is None:
                self.casts.clear()

    @contextmanager
    def no_grad(self) -> Iterator[None]:
        before, self.grad_enabled = self.grad_enabled, False
        try:
            yield
        finally:
            self.grad_enabled = before


def _some_want_gradients(inputs: Sequence[Tensor | None]) -> bool:
    for x in inputs:  # noqa: SIM110  # a generator would take twice as long, and every operator asks
        if x is not None and x.requires_grad:
            return True
    return False


def broadcast(a: Shape, b: Shape) -> Shape:
    """The shape of `a + b`. A size that is the number 1 gives way; sizes that are arrays are taken to agree."""
    if a == b if _plain(a) and _plain(b) else a is b:
        return a
    if len(a) < len(b):
        a, b = b, a
    lead = len(a) - len(b)
    return a[:lead] + tuple(y if isinstance(x, int) and x == 1 else x for x, y in zip(a[lead:], b, strict=True))


def _plain(shape: Shape) -> bool:
    return all(isinstance(size, int) for size in shape)


def _view_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad.view(*call.context),)


def _pass_backward(_: Call, grad: Tensor | None) -> Grads:
    return (grad,)  # for a cast too: the engine brings every gradient to its input's dtype, one copy either way


def _add_backward(_: Call, grad: Tensor | None) -> Grads:
    return (grad, grad)


def _sub_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad, -grad if call.needs[1] else None)


def _scaled_backward(_: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad.tape.empty(grad.shape, grad.dtype),)


def _mul_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    first, second = call.saved
    return (grad * second if call.needs[0] else None, grad * first if call.needs[1] else None)
