"""Modules: parameters with names, as torch.nn has them, so that LoRA targets and parameter counts mean the same here."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from preflight.tape import kronecker, low_rank, normalization
from preflight.tape import linear as ops
from preflight.tape.checkpoint import checkpoint
from preflight.tape.dropout import fused_dropout
from preflight.tape.meter import Segment
from preflight.tape.quantized import Quantized
from preflight.tape.quantized import linear as quantized_linear
from preflight.tape.tensor import Buffer, Parameter, Tape, Tensor


class Module:
    """Parameters and modules are its attributes; lists of modules are numbered."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.forward(*arguments, **options)

    def forward(self, *arguments: Any, **options: Any) -> Any:
        raise NotImplementedError

    def children(self) -> Iterator[tuple[str, Module, int]]:
        """Name, module, and how many of the network's modules it stands for."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value, 1
            elif isinstance(value, list | tuple):
                yield from ((f"{name}.{i}", item, 1) for i, item in enumerate(value) if isinstance(item, Module))

    def modules(self, prefix: str = "", copies: int = 1) -> Iterator[tuple[str, Module, int]]:
        """Itself and everything below: dotted name, module, copies."""
        yield prefix, self, copies
        for name, child, times in self.children():
            yield from child.modules(f"{prefix}.{name}" if prefix else name, copies * times)

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every parameter with its dotted name; `Parameter.copies` is set to how many it stands for."""
        return ((name, tensor) for name, tensor in self.tensors() if not isinstance(tensor, Buffer))

    def tensors(self) -> Iterator[tuple[str, Parameter]]:
        """Parameters and buffers."""
        for prefix, module, copies in self.modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter):
                    value.copies = copies
                    yield (f"{prefix}.{name}" if prefix else name), value

    def bind(self, tape: Tape) -> None:
        """Let every parameter and buffer record on `tape`."""
        for _, tensor in self.tensors():
            tensor.tape = tape


class Linear(Module):
    """y = x Wᵀ + b, and with an adapter + B A x, as peft/tuners/lora/layer.py: Linear.forward or another's code computes it."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        self.weight = Parameter((outputs, inputs))
        self.bias = Parameter((outputs,)) if bias else None
        self.lora_A: Parameter | None = None
        self.lora_B: Parameter | None = None
        self.lora_dropout = False
        self.lora_code: str | None = None
        self.lokr_w1: Parameter | None = None
        self.lokr_w2: Parameter | None = None
        self.lokr_w2_b: Parameter | None = None

    @property
    def adapted(self) -> bool:
        return self.lora_A is not None or self.lokr_w1 is not None

    def adapt(self, rank: int, *, dropout: bool = False, code: str | None = None) -> None:
        """Add a LoRA adapter of `rank`, with or without dropout on its input, in peft's code or in the trainer's own."""
        outputs, inputs = self.weight.shape
        self.lora_dropout, self.lora_code = dropout, code
        self.lora_A, self.lora_B = Parameter((rank, inputs)), Parameter((outputs, rank))

    def adapt_kronecker(self, rank: int, factor: int, *, code: str | None = None) -> None:
        """Add a LoKr adapter of `factor`, its larger part of `rank`, in LyCORIS' code or in the trainer's own."""
        outputs, inputs = self.weight.shape
        self.lora_code = code
        self.lokr_w1, self.lokr_w2, *narrow = kronecker.factors(inputs, outputs, rank, factor)
        self.lokr_w2_b = narrow[0] if narrow else None

    def forward(self, x: Tensor, *, transposed: bool = False) -> Tensor:
        product = ops.linear_transposed if transposed else ops.linear
        weight = self.weight
        result = quantized_linear(x, weight, self.bias) if isinstance(weight, Quantized) else product(x, weight, self.bias)
        if self.lokr_w1 is not None and self.lokr_w2 is not None:
            change = kronecker.adapted if self.lora_code == "ai-toolkit" else kronecker.bypassing
            return change(x, result, self.lokr_w1, self.lokr_w2, self.lokr_w2_b)
        if self.lora_A is None or self.lora_B is None:
            return result
        if self.lora_code == "ai-toolkit":
            return low_rank.adapted(x, result, self.lora_A, self.lora_B, product)
        dtype = result.dtype
        x = x.to(self.lora_A.dtype)  # peft: _cast_input_dtype
        if self.lora_dropout:
            x = fused_dropout(x)
        result = result + ops.linear(product(x, self.lora_A), self.lora_B) * 1.0
        return result.to(dtype)


class Conv(Module):
    """A convolution of one, two or three dimensions, by the length of its kernel."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, ...],
        *,
        stride: tuple[int, ...] | int = 1,
        padding: tuple[int, ...] | int = 0,
        bias: bool = True,
    ) -> None:
        self.weight = Parameter((outputs, inputs, *kernel))
        self.bias = Parameter((outputs,)) if bias else None
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv(x, self.weight, self.bias, stride=self.stride, padding=self.padding)


class ConvTranspose(Module):
    """A transposed convolution."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, ...],
        *,
        stride: int,
        padding: int = 0,
        output_padding: int = 0,
    ) -> None:
        self.weight = Parameter((inputs, outputs, *kernel))
        self.bias = Parameter((outputs,))
        self.stride, self.padding, self.output_padding = stride, padding, output_padding

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv_transpose(
            x, self.weight, self.bias, stride=self.stride, padding=self.padding, output_padding=self.output_padding
        )


class LayerNorm(Module):
    """torch.nn.LayerNorm over the last dimension."""

    def __init__(self, width: int, *, affine: bool = True) -> None:
        self.weight = Parameter((width,)) if affine else None
        self.bias = Parameter((width,)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        return normalization.layer_norm(x, self.weight, self.bias)


class GroupNorm(Module):
    """torch.nn.GroupNorm of x (B, C, *size)."""

    def __init__(self, groups: int, channels: int) -> None:
        if channels % groups:
            raise ValueError(f"{channels} channels do not divide into {groups} groups")
        self.groups = groups
        self.weight, self.bias = Parameter((channels,)), Parameter((channels,))

    def forward(self, x: Tensor) -> Tensor:
        return normalization.group_norm(x, self.groups, self.weight, self.bias)


class FP32LayerNorm(LayerNorm):
    """Casts everything to float32 and back (diffusers/models/normalization.py: FP32LayerNorm)."""

    def forward(self, x: Tensor) -> Tensor:
        dtype = x.dtype
        weight = self.weight.float() if self.weight is not None else None
        bias = self.bias.float() if self.bias is not None else None
        return normalization.layer_norm(x.float(), weight, bias).to(dtype)


class RMSNorm(Module):
    """torch.nn.RMSNorm over the last dimension."""

    def __init__(self, width: int) -> None:
        self.weight = Parameter((width,))

    def forward(self, x: Tensor) -> Tensor:
        return normalization.rms_norm(x, self.weight)


class Checkpointing:
    """Which blocks are checkpointed: none, all, units of `every` blocks `stride` apart, or the last `fraction` of them."""

    def __init__(self, policy: bool | Mapping[str, float] = False) -> None:
        keys = policy if isinstance(policy, Mapping) else {"fraction": float(policy)}
        self.every = int(keys.get("every", 1))
        self.stride = int(keys.get("stride", self.every))
        if self.stride < self.every:
            message = f"units of {self.every} blocks every {self.stride} overlap"
            raise ValueError(message)
        self.fraction = float(keys.get("fraction", 1.0))

    def covers(self, block: int, blocks: int) -> bool:
        """HunyuanDiT hydit/modules/models.py: `--gc-rate` checkpoints the blocks from depth x (1 - rate) on.

        SimpleTuner gradient_checkpointing_interval.py, should_checkpoint_block: the first `every` of each `stride` blocks.
        """
        return block >= blocks - int(blocks * self.fraction) and block % self.stride < self.every


class Blocks(Module):
    """`count` blocks in a row. Neighbours of one kind are walked three at a time: the middle one stands for the others.

    `kind(i)` tells blocks apart that are built or used differently; whether they are checkpointed is told apart anyway, and with
    `mirrored` also whether their mirror image is (a U-shaped network's long skips tie block i to block count - 1 - i).
    """

    def __init__(
        self,
        count: int,
        make: Callable[[int], Module],
        checkpointing: Checkpointing,
        kind: Callable[[int], Hashable] = lambda _: None,
        *,
        mirrored: bool = False,
        extend: bool = True,
    ) -> None:
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            message = f"{count!r} blocks, where a whole number of at least 1 is expected"
            raise ValueError(message)

        def tell(i: int) -> tuple[Hashable, bool, bool]:
            return kind(i), checkpointing.covers(i, count), mirrored and checkpointing.covers(count - 1 - i, count)

        self._told, self._make, self._extend = [tell(i) for i in range(count)], make, extend
        self._checkpointing, self.mirrored, self.count = checkpointing, mirrored, count
        self.keep(0, count)

    def keep(self, start: int, stop: int) -> None:
        """Build anew the blocks from `start` to before `stop`, which keep their numbers, and no others."""
        self._runs: list[tuple[int, list[_Piece]]] = []
        for begin, units, length in _repeating(self._told[start:stop], self._checkpointing):
            for first, copies in _walked(start + begin, units, length, extend=self._extend):
                covered = [(i, self._told[i][1]) for i in range(first, first + length)]
                groups = [list(group) for _, group in groupby(covered, key=itemgetter(1))]
                pieces = [_Piece(group[0][0], [self._make(i) for i, _ in group], group[0][1]) for group in groups]
                self._runs.append((copies, pieces))

    def children(self) -> Iterator[tuple[str, Module, int]]:
        for copies, pieces in self._runs:
            for piece in pieces:
                yield from ((str(piece.first + i), module, copies) for i, module in enumerate(piece.modules))

    def walk(self, tape: Tape) -> Iterator[Callable[..., Any]]:
        """The blocks to call, in order; what each does is counted for all that it stands for."""
        return (block for _, block in self.numbered(tape))

    def numbered(self, tape: Tape) -> Iterator[tuple[int, Callable[..., Any]]]:
        """The same, each with its number."""
        for copies, pieces in self._runs:
            tape.meter.begin(Segment(copies))
            for piece in pieces:
                called = [_hooked(module, tape) for module in piece.modules]
                if piece.covered:
                    yield piece.first, _checkpointed(called[0] if len(called) == 1 else _Unit(called))
                else:
                    yield from ((piece.first + i, module) for i, module in enumerate(called))
        tape.meter.begin(Segment())


class _Piece(NamedTuple):
    """Blocks from `first` on: one checkpoint, or none."""

    first: int
    modules: list[Module]
    covered: bool


class _Unit(Module):
    """Several blocks called as one: each takes the place of its first arguments' values in the next one's call."""

    def __init__(self, modules: list[Callable[..., Any]]) -> None:
        self._modules = modules

    def forward(self, *arguments: Any) -> Any:
        out: Any = None
        for module in self._modules:
            out = module(*arguments)
            results = out if isinstance(out, tuple) else (out,)
            arguments = (*results, *arguments[len(results) :])
        return out


def _hooked(module: Module, tape: Tape) -> Callable[..., Any]:
    return tape.parallel.around(module, module)


def _checkpointed(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments: checkpoint(function, *arguments)


def _repeating(told: list[tuple[Hashable, bool, bool]], checkpointing: Checkpointing) -> Iterator[tuple[int, int, int]]:
    """(first block, units, blocks a unit) of units in a row that are alike, a checkpoint in each or none."""
    every, stride = checkpointing.every, checkpointing.stride
    if stride > every:
        windows = [(i, tuple(told[i : i + stride])) for i in range(0, len(told), stride)]
        for window, group in groupby(windows, key=itemgetter(1)):
            starts = [i for i, _ in group]
            yield starts[0], len(starts), len(window)
        return
    for (_, covered, _), same in groupby(range(len(told)), key=told.__getitem__):
        indices = list(same)
        yield from _units(indices, every if covered else 1)


def _units(indices: list[int], size: int) -> Iterator[tuple[int, int, int]]:
    """(first block, units, blocks a unit) covering `indices` in units of `size`, the rest in a shorter one."""
    units, rest = divmod(len(indices), size)
    if units:
        yield indices[0], units, size
    if rest:
        yield indices[0] + units * size, 1, rest


def _walked(start: int, units: int, length: int, *, extend: bool) -> Iterator[tuple[int, int]]:
    """(first block, copies) of each unit that is walked."""
    if units <= 3 or not extend:
        yield from ((start + i * length, 1) for i in range(units))
        return
    yield start, 1
    yield start + length, units - 2
    yield start + (units - 1) * length, 1
