"""The network of a job, with its adapters, its dtypes, and what of it trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec

from preflight.finding import ConfigError, Finding
from preflight.job import Job
from preflight.memory.quantization import quantize, share_on_host
from preflight.memory.stages import Stage, cut, elsewhere
from preflight.networks.network import Network, NotModelled
from preflight.spec import Lora
from preflight.tape.module import Checkpointing, Linear, Module
from preflight.tape.tensor import Buffer, Parameter


def family(name: str) -> type[Network] | None:
    """The class of `networks/NAME.py`, or None where no such network is written yet."""
    module = f"preflight.networks.{name}"
    if find_spec(module) is None:
        return None
    made: type[Network] = import_module(module).NETWORK
    return made


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network ready to walk. Bytes are of the whole network, before any sharding, or of one pipeline `stage` of it.

    `absent` parameters and buffers are on other stages, and are walked through all the same: what they leave is received.
    """

    network: Network
    adapters: bool
    stage: Stage | None = None
    absent: frozenset[Parameter] = frozenset()

    @cached_property
    def tensors(self) -> tuple[Parameter, ...]:
        """Parameters and buffers."""
        return tuple(tensor for _, tensor in self.network.tensors() if tensor not in self.absent)

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(tensor for tensor in self.tensors if not isinstance(tensor, Buffer))

    @cached_property
    def buffer_bytes(self) -> int:
        return sum(tensor.nbytes * tensor.copies for tensor in self.tensors if isinstance(tensor, Buffer))

    @property
    def trainable(self) -> tuple[Parameter, ...]:
        return tuple(p for p in self.parameters if p.requires_grad)

    @cached_property
    def parameter_count(self) -> int:
        return sum(p.numel * p.copies for p in self.parameters)

    @cached_property
    def trainable_count(self) -> int:
        return sum(p.numel * p.copies for p in self.trainable)

    @cached_property
    def trainable_bytes(self) -> int:
        return sum(p.nbytes * p.copies for p in self.trainable)

    @cached_property
    def frozen_bytes(self) -> int:
        """Frozen parameters and buffers."""
        return sum(p.nbytes * p.copies for p in self.parameters if not p.requires_grad) + self.buffer_bytes

    @cached_property
    def block_bytes(self) -> int:
        """The largest repeated block's parameters: what sharding gathers and block swap moves at a time."""
        return max((_bytes(module) for module in self.network.block_modules()), default=self.frozen_bytes + self.trainable_bytes)


def build(job: Job, *, extend: bool = True, stage: Stage | None = None) -> Model:
    """The job's network, or what a pipeline `stage` has of it.

    Raises ConfigError where its dimensions make no network, or LoRA targets match nothing.
    """
    spec = job.spec
    make = family(job.network.family)
    assert make is not None, "job() refuses networks that are not modelled"
    network = _constructed(make, job, extend=extend)
    if stage is not None:
        cut(network, stage)
    lora = spec.train.lora if spec.train.method == "lora" else None
    if lora is not None:
        _adapt(network, lora, whole=stage is None)
    absent = elsewhere(network, stage) if stage is not None else frozenset()
    for tensor in absent:
        tensor.requires_grad = False
    for _, tensor in network.parameters():
        if tensor.dtype == "fp32":  # complex parameters keep their type
            tensor.dtype = lora.dtype if lora is not None and tensor.requires_grad else spec.precision.weights
    quantize(network, spec.precision.quantization, spec.precision.weights, away=share_on_host(spec.offload.layers))
    return Model(network=network, adapters=lora is not None, stage=stage, absent=absent)


def _constructed(make: type[Network], job: Job, *, extend: bool) -> Network:
    checkpointing = _checkpointing(job)
    with sensible_dims(job):
        network = make(job.dims, checkpointing, extend=extend)
        for name, parameter in network.parameters():
            if not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in parameter.shape):
                message = f"{name} would have the shape {list(parameter.shape)}"
                raise ValueError(message)
        return network


def _checkpointing(job: Job) -> Checkpointing:
    try:
        return Checkpointing(job.spec.train.checkpointing)
    except ValueError as error:
        message = f"This checkpointing cannot be: {error}."
        raise ConfigError(Finding(id="invalid-value", severity="error", message=message, key="train.checkpointing")) from None


@contextmanager
def sensible_dims(job: Job) -> Iterator[None]:
    """Turn what fails inside into a refusal of the dimensions, where the config gives some; else it is our own fault."""
    name = job.network.name
    try:
        yield
    except NotModelled as error:
        raise _refusal("not-modelled", f"Cannot judge: {error}.") from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        if not job.spec.model.dims and not job.network.free_dims:
            raise
        if isinstance(error, KeyError):
            raise _refusal("missing-dimension", f"{name} needs {error.args[0]!r} among its dimensions.") from None
        raise _refusal("bad-dimension", f"The dimensions given for {name} make no network: {error}.") from None


def _refusal(id_: str, message: str) -> ConfigError:
    return ConfigError(Finding(id=id_, severity="error", message=message, key="model.dims"))


def _adapt(network: Network, lora: Lora, *, whole: bool) -> None:
    for _, parameter in network.parameters():
        parameter.requires_grad = False
    matched = dict.fromkeys(lora.targets, False)
    linear = [(name, module) for name, module, _ in network.modules() if isinstance(module, Linear)]
    for name, module in linear:
        hits = [target for target in lora.targets if name == target or name.endswith(f".{target}")]
        matched.update(dict.fromkeys(hits, True))
        if hits:
            if lora.factor is not None:
                module.adapt_kronecker(lora.rank, lora.factor, code=lora.code)
            else:
                module.adapt(lora.rank, dropout=lora.dropout > 0, code=lora.code)
    missing = [target for target, hit in matched.items() if not hit]
    if missing and whole:
        some = sorted({name.split(".", 2)[-1] for name, _ in linear if name.startswith("blocks.")} or {name for name, _ in linear})
        message = f"LoRA target {missing[0]!r} matches no linear layer of the network, which has {', '.join(some[:12])}."
        raise ConfigError(Finding(id="lora-target", severity="error", message=message, key="train.lora.targets"))


def _bytes(module: Module) -> int:
    # not through tensors(), which would set every `copies` to that of the block by itself
    parts = (part for _, part, _ in module.modules())
    return sum(value.nbytes for part in parts for value in vars(part).values() if isinstance(value, Parameter))
