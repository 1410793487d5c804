"""The canonical description of a run: what adapters produce and the only thing the engine reads.

`schemas/spec.schema.json` says which values are legal; `Spec.from_mapping` expects data that has passed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_type_hints

Dtype = Literal["fp32", "bf16", "fp16"]
Placement = Literal["cached", "online", "offloaded"]
Strategy = Literal["none", "dp", "ddp", "fsdp", "zero1", "zero2", "zero3"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """`name` is a catalog id; `dims` overrides its dimensions, or gives all for a family without fixed sizes.

    `code`: whose writing of the network runs, where trainers differ; null is the family's reference. `experts` says where a network
    of two lives: one alone is loaded, both stay on the GPU, or the idle one waits on the host.
    """

    name: str
    experts: Literal["one", "both", "swapped"] = "one"
    code: Literal["musubi", "diffsynth", "videox", "fastvideo"] | None = None
    dims: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, kw_only=True, slots=True)
class Lora:
    """`targets` are matched as peft does: a module whose name is a target or ends with "." + target.

    `shared`: one adapter serves both experts of a network that has two. With a `factor` the adapters are Kronecker products (LoKr):
    each side of a layer is split by it, by -1 as evenly as it goes. `code`: whose forward pass of an adapter runs; null: peft's.
    `sharded`: whether fsdp divides them as it does the network, or every GPU has them whole.
    """

    rank: int
    factor: int | None = None
    code: Literal["ai-toolkit"] | None = None
    alpha: float | None = None
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    dropout: float = 0.0
    dtype: Dtype = "fp32"
    shared: bool = False
    sharded: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimizer:
    """`bits` per element of each state: 32 (as the parameters), 16 or 8 (bitsandbytes, blockwise).

    `fused`: torch's single kernel for Adam. `momentum`: whether SGD keeps a buffer; null means that it does.
    """

    name: str = "adamw"
    bits: Literal[8, 16, 32] = 32
    fused: bool = False
    momentum: bool | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Distillation:
    """Networks beside the one that trains, the student: catalog ids, of weights and sharded as the student is.

    The `teacher` is frozen and only asked; with `cached` it writes its answers down first and leaves before training begins. The
    `critic` (the fake score of distribution matching distillation) learns what the student makes, with an optimizer of its own.
    """

    teacher: str | None = None
    critic: str | None = None
    cached: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """`batch` is per GPU, and `rows` of the network's batch are made of each sample; `ahead` more pass before those, without
    gradient and without adapters. `passes`: how often those with gradient go forward and back in a micro-step. `ema_dtype` is that
    of the averaged copy, null as the weights'.

    `zero_grad` says when the trainer drops gradients, so whether they live in the forward. `attention`: torch's own, or the
    flash-attn package, which the trainer then calls itself. `use_reentrant` is torch.utils.checkpoint's argument: whether each
    checkpoint runs its own backward pass.
    """

    method: Literal["lora", "full"]
    lora: Lora | None = None
    batch: int = 1
    rows: int = 1
    ahead: int = 0
    passes: int = 1
    accumulation: int = 1
    checkpointing: bool | Mapping[str, float] = False
    use_reentrant: bool = False
    optimizer: Optimizer = field(default_factory=Optimizer)
    ema: bool = False
    ema_dtype: Dtype | None = None
    zero_grad: Literal["after-step", "before-backward"] = "after-step"
    attention: Literal["torch", "flash-attn"] = "torch"
    distillation: Distillation | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """Pixels, not latents. `latents` and `text` say where the VAE and the text encoder are during a step; with `vae_resident` the
    VAE is on the GPU though latents are cached.

    `workers` are the DataLoader's processes per GPU, each of which prepares `prefetch` batches ahead (torch's default: 2).
    `text_loading`: whether the run loads the text encoders onto the GPU as it starts, whatever `text` says of its steps, and where
    the network is then: it stays away (alone) or comes back once they are narrowed (apart), is there (beside), or comes whole after
    the largest of them (first). `pixel_step`: the trainer's buckets have sides in multiples of it, beside the network's own
    multiple. `fps`: the frames a second that the trainer takes of a clip; null: all that it has. `pixels_kept`: of a batch that is
    encoded as it trains, how many channels a pixel stay on the GPU until the next one, by their dtype.
    """

    height: int
    width: int
    pixel_step: int = 1
    frames: int = 1
    fps: float | None = None
    text_tokens: int | None = None
    latents: Placement = "cached"
    vae_resident: bool = False
    text: Placement = "cached"
    text_loading: Literal["none", "alone", "apart", "beside", "first"] = "none"
    workers: int | None = None
    prefetch: int = 2
    pixels_kept: Mapping[Dtype, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, kw_only=True, slots=True)
class Precision:
    """`master`: dtype of the copy the optimizer updates beside low-precision weights (DeepSpeed); null: none.

    `text_encoder` and `vae` are the dtypes those are loaded in; null means the catalog's. `quantization` is of the network's frozen
    weights, `text_encoder_quantization` of the text encoders'; `quantized_on` and `text_encoder_quantized_on`: whether weights are
    narrowed before they reach the GPU, or all stand there as wide as they are first. `tf32`: whether float32 matrix products may
    use TF32; null where the config does not say, and torch's own default is no. `attention` is what attention's inputs are cast to,
    as autocast does on CUDA (aten/src/ATen/autocast_mode.h); null: it runs in what it is given. `loaded`: the dtype that the whole
    network has on the GPU before it is cast to `weights` there; null: it comes in that. `norms` is how RMS norms run: written out
    by torch, in Python by diffusers' own class, or as torch 2.9's one kernel.
    """

    weights: Dtype = "bf16"
    autocast: Literal["bf16", "fp16"] | None = None
    quantization: str = "none"
    quantized_on: Literal["host", "gpu"] = "host"
    text_encoder_quantization: str = "none"
    text_encoder_quantized_on: Literal["host", "gpu"] = "host"
    master: Literal["fp32"] | None = None
    text_encoder: Dtype | None = None
    vae: Dtype | None = None
    tf32: bool | None = None
    attention: Literal["bf16", "fp16"] | None = None
    loaded: Dtype | None = None
    norms: Literal["composite", "plain", "fused"] = "composite"


@dataclass(frozen=True, kw_only=True, slots=True)
class Zero:
    """Keys of DeepSpeed's `zero_optimization`, those of stage 3 without their prefix; sizes in elements, null: its default.

    `untested` is zero_allow_untested_optimizer: whether any optimizer will do.
    """

    contiguous_gradients: bool | None = None
    reduce_scatter: bool | None = None
    overlap_comm: bool | None = None
    reduce_bucket_size: int | None = None
    sub_group_size: int | None = None
    prefetch_bucket_size: int | None = None
    param_persistence_threshold: int | None = None
    max_live_parameters: int | None = None
    max_reuse_distance: int | None = None
    untested: bool | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Parallel:
    """`gpus` counts all ranks of the run. `sequence`, `tensor` and `pipeline` divide one replica; the rest is data-parallel.

    Of the `sequence` GPUs, `ring` pass keys and values round; the others exchange attention's heads. `sequence_code`: who writes
    that.

    `partition` says where pipeline stages begin: balanced by parameters, equally many layers each, or the first layer of each but
    the first, where what runs before the blocks is layer 0. `fsdp_version`: 1 is FullyShardedDataParallel with its flat parameters,
    2 is fully_shard; `backward_prefetch`, `forward_prefetch` and `use_orig_params` are arguments of the first. `no_sync`:
    micro-batches before the last leave their gradients as they are, which fsdp then keeps whole (accelerate's accumulate).
    `loading`: every rank loads the whole model, the first does and sends it on, or each builds its part (DeepSpeed's zero.Init).
    `shard`: fsdp divides parameters between so many GPUs and repeats that over the others (hybrid shard); null: between all.
    `wrap`: fsdp gathers and frees each repeated block by itself, or the whole network at once.
    """

    gpus: int = 1
    nodes: int = 1
    strategy: Strategy = "none"
    sequence: int = 1
    ring: int = 1
    sequence_code: Literal["yunchang", "diffusers", "torch"] = "yunchang"
    tensor: int = 1
    pipeline: int = 1
    partition: Literal["parameters", "uniform"] | tuple[int, ...] = "parameters"
    fsdp_version: Literal[1, 2] = 2
    backward_prefetch: Literal["pre", "post", "none"] = "pre"
    forward_prefetch: bool = False
    use_orig_params: bool = True
    no_sync: bool = False
    reshard: bool = True
    compute: Dtype | None = None
    reduce: Dtype | None = None
    zero: Zero | None = None
    loading: Literal["whole", "first", "sharded"] = "whole"
    shard: int | None = None
    wrap: Literal["blocks", "whole"] = "blocks"

    @property
    def shards(self) -> int:
        """How many GPUs FSDP divides each parameter between."""
        return self.shard or self.gpus

    @property
    def data_parallel(self) -> int:
        """How many replicas see different samples: GPUs ÷ (sequence x tensor x pipeline)."""
        return max(1, self.gpus // self.group)

    @property
    def group(self) -> int:
        """How many GPUs work on the same sample."""
        return self.sequence * self.tensor * self.pipeline


@dataclass(frozen=True, kw_only=True, slots=True)
class Offload:
    """`blocks` of the network swap with the host; with `layers` the linear layers inside blocks come one at a time (RamTorch), all
    or such a share of them; with `text_layers` those of the text encoders. `activations`: of what each checkpoint is given the
    hidden state waits on the host, or with "saved" every tensor, as torch.autograd.graph.save_on_cpu has it.
    """

    optimizer: bool = False
    parameters: bool = False
    activations: bool | Literal["saved"] = False
    blocks: int = 0
    layers: bool | float = False
    text_layers: bool | float = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Validation, `every` so many steps or `every_epochs` so many epochs, and with `final` at the end.

    A null size is the training size; `batch` samples are made at once per GPU. `text`: text encoders that wait on the host come
    back for it. `offload`: text encoders leave for the network, and that for the VAE. `tiling`: the VAE decodes tile by tile.
    `own_vae`: it comes for that beside the one which is there.
    """

    every: int | None = None
    every_epochs: int | None = None
    final: bool = False
    height: int | None = None
    width: int | None = None
    frames: int | None = None
    steps: int | None = None
    guidance: bool = True
    batch: int = 1
    text: bool = False
    offload: bool = False
    tiling: bool = False
    own_vae: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Save:
    """Checkpoints of steps and of epochs, of which `keep` stay; one that each later one overwrites; one at the end."""

    every: int | None = None
    every_epochs: int | None = None
    latest_every: int | None = None
    final: bool = False
    keep: int | None = None
    optimizer: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """How long the run goes on; what the config does not say is null.

    `samples` and `validation_samples` are the sizes of the two data sets; `effective_batch` is what the config itself claims.
    `unit` is what `steps` and the intervals between samples and checkpoints count: optimizer steps, or each forward pass.
    """

    samples: int | None = None
    validation_samples: int | None = None
    epochs: int | None = None
    steps: int | None = None
    warmup: int | None = None
    unit: Literal["step", "pass"] = "step"
    effective_batch: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Paths:
    """Files and folders that the config names, as it spells them."""

    model: str | None = None
    train: str | None = None
    validation: str | None = None
    resume: str | None = None
    output: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """`gpu` is a catalog id or alias; host memory and disk are per node.

    `expandable_segments`: the run starts with PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True.
    """

    gpu: str | None = None
    expandable_segments: bool = False
    host_memory_gib: float | None = None
    disk_free_gib: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    model: Model
    train: Train
    data: Data
    precision: Precision = field(default_factory=Precision)
    parallel: Parallel = field(default_factory=Parallel)
    offload: Offload = field(default_factory=Offload)
    sample: Sample | None = None
    save: Save | None = None
    schedule: Schedule = field(default_factory=Schedule)
    paths: Paths = field(default_factory=Paths)
    hardware: Hardware = field(default_factory=Hardware)

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Spec:
        """The spec in `data`, which must have passed `spec.schema.json`."""
        return _build(cls, {key: value for key, value in data.items() if key != "preflight"})

    def to_mapping(self) -> dict[str, Any]:
        """Plain data with every key, `preflight: 1` first; reading it back gives an equal spec."""
        return {"preflight": 1, **_plain(self)}

    @property
    def effective_batch(self) -> int:
        """Samples per optimizer step over the whole run: batch x accumulation x data-parallel degree."""
        return self.train.batch * self.train.accumulation * self.parallel.data_parallel


T = TypeVar("T")


def _build(cls: type[T], data: Mapping[str, Any]) -> T:
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for f in fields(cls):  # type: ignore[arg-type]  # every cls here is one of the dataclasses above
        if f.name not in data or (data[f.name] is None and f.default is MISSING):
            continue
        values[f.name] = _value(hints[f.name], data[f.name])
    return cls(**values)


def _value(hint: Any, value: Any) -> Any:
    for option in getattr(hint, "__args__", (hint,)):
        if is_dataclass(option) and isinstance(value, Mapping):
            return _build(option, value)  # type: ignore[arg-type]  # a class, as the hint holds types
    if isinstance(value, list):
        return tuple(value)
    return MappingProxyType(dict(value)) if isinstance(value, Mapping) else value


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
