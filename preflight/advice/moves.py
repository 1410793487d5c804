"""What can be changed to save memory: a table, in order of how little each costs the user.

A move that has nothing to offer a run (it is done already, the GPU or the strategy does not allow it) has no values for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from preflight.advice import candidates
from preflight.advice.candidates import present
from preflight.job import Job
from preflight.memory.model import family
from preflight.memory.stages import TAKES_STAGES
from preflight.memory.zero import known_to_zero
from preflight.spec import Parallel, Spec, Strategy

FREE, SLOWER, LOSSY = 1, 2, 3
AXES = ("height", "width")
ZERO_STAGES: tuple[Strategy, ...] = ("zero1", "zero2", "zero3")
# Eight bits before four; a trainer has keys for some of them.
QUANTIZED = (
    "fp8", "fp8-layerwise", "fp8-quanto", "fp8-quanto-blocks", "int8-quanto", "int8-quanto-simpletuner", "nf4", "int4-quanto",
)  # fmt: skip
LOWEST_RANK = 4  # below it an adapter learns next to nothing (Hu et al. 2021, arXiv 2106.09685, table 6)


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """`values` are its steps for a job, the least first, and `apply` is the job's spec with one of them made.

    `tier` is what it costs: nothing, time, or some of the result. `needs` are the canonical keys without which it is not made.
    `shape` names the dimensions of a Candidate that a value holds, where it holds some: they can be walked all at once. `brings`
    are canonical keys that the trainer changes along with it.
    """

    name: str
    tier: int
    needs: tuple[str, ...]
    values: Callable[[Job], Sequence[Any]]
    apply: Callable[[Job, Any], Spec]
    shape: tuple[str, ...] = ()
    brings: Mapping[str, Any] = field(default_factory=dict, hash=False)


def moves(*, accumulates: bool) -> tuple[Move, ...]:
    """Every move, cheapest first; `accumulates` says whether the trainer has a key for accumulation."""

    def batches(job: Job) -> list[tuple[int]]:
        return [(batch,) for batch in candidates.batches(job, accumulates=accumulates)]

    def split(job: Job, ranks: int) -> Spec:
        return _split(job.spec, ranks, accumulates=accumulates)

    def stages(job: Job, count: int) -> Spec:
        return _shared(job.spec, replace(job.spec.parallel, pipeline=count), accumulates=accumulates)

    size = tuple(f"data.{axis}" for axis in AXES)
    kept = ("train.batch", "train.accumulation") if accumulates else ("train.batch",)
    return (
        _switch("half", FREE, ("precision.weights", "precision.autocast"), _half),
        _switch("quantised on the host", FREE, ("precision.quantized_on",), _quantised_away),
        _switch("cached", FREE, ("data.latents", "data.text"), _cached),
        _switch("offloaded", FREE, ("data.latents", "data.text"), _away),
        _switch("checkpointing", FREE, ("train.checkpointing",), _checkpointed),
        _switch("8-bit", FREE, ("train.optimizer.bits",), _eight_bit),
        _switch("tiled", FREE, ("sample.tiling",), _tiled),
        Move(name="shorter samples", tier=FREE, needs=("sample.frames",), values=_shorter, apply=_shortened),
        Move(name="sampled", tier=SLOWER, needs=("sample.batch",), values=_fewer_samples, apply=_sampling),
        shaped("batch", SLOWER, kept, batches, ("batch",), accumulates=accumulates),
        _switch("sharded", SLOWER, ("parallel.strategy",), _sharded),
        Move(name="stage", tier=SLOWER, needs=("parallel.strategy",), values=_zero_stages, apply=_zero),
        Move(name="split", tier=SLOWER, needs=("parallel.sequence",), values=_groups, apply=split),
        Move(name="pipeline", tier=SLOWER, needs=("parallel.pipeline",), values=_pipelines, apply=stages),
        _switch("optimizer", SLOWER, ("offload.optimizer",), _optimizer_away),
        Move(name="swapped", tier=SLOWER, needs=("offload.blocks",), values=_blocks, apply=_swap),
        _switch("activations", SLOWER, ("offload.activations",), _activations_away),
        _switch("layers", SLOWER, ("offload.layers",), _layers_away),
        _switch("parameters", SLOWER, ("offload.parameters",), _weights_away),
        *(_switch(name, LOSSY, ("precision.quantization",), partial(_quantised, name)) for name in QUANTIZED),
        Move(name="rank", tier=LOSSY, needs=("train.lora.rank",), values=_ranks, apply=_rank),
        shaped("frames", LOSSY, ("data.frames",), _frames, ("frames",), accumulates=accumulates),
        shaped("size", LOSSY, size, candidates.sizes, AXES, accumulates=accumulates),
        shaped("frames and size", LOSSY, ("data.frames", *size), candidates.joint, ("frames", *AXES), accumulates=accumulates),
    )


def shaped(
    name: str,
    tier: int,
    needs: tuple[str, ...],
    values: Callable[[Job], Sequence[Any]],
    shape: tuple[str, ...],
    *,
    accumulates: bool,
) -> Move:
    """A move to other shapes: a value holds the dimensions `shape`."""

    def apply(job: Job, value: Any) -> Spec:
        candidate = replace(present(job.spec), **dict(zip(shape, value, strict=True)))
        return candidates.apply(job.spec, candidate, accumulates=accumulates)

    return Move(name=name, tier=tier, needs=needs, values=values, apply=apply, shape=shape)


def _switch(name: str, tier: int, needs: tuple[str, ...], change: Callable[[Job], Spec]) -> Move:
    """A move of one step, or of none where it is made already."""
    return Move(
        name=name,
        tier=tier,
        needs=needs,
        values=lambda job: [True] if change(job) != job.spec else [],
        apply=lambda job, _: change(job),
    )


def _half(job: Job) -> Spec:
    """float16 where the card has no bfloat16: attention is then fused."""
    spec, gpu = job.spec, job.gpu
    if gpu is None or gpu.bf16:
        return spec
    precision, parallel = spec.precision, spec.parallel
    weights = "fp16" if precision.weights == "bf16" else precision.weights
    autocast = "fp16" if precision.autocast == "bf16" else precision.autocast
    compute = "fp16" if parallel.compute == "bf16" else parallel.compute
    changed = replace(precision, weights=weights, autocast=autocast)
    return replace(spec, precision=changed, parallel=replace(parallel, compute=compute))


def _quantised_away(job: Job) -> Spec:
    return replace(job.spec, precision=replace(job.spec.precision, quantized_on="host"))


def _cached(job: Job) -> Spec:
    return replace(job.spec, data=replace(job.spec.data, latents="cached", text="cached"))


def _away(job: Job) -> Spec:
    data = job.spec.data
    latents = "offloaded" if data.latents == "online" else data.latents
    text = "offloaded" if data.text == "online" else data.text
    return replace(job.spec, data=replace(data, latents=latents, text=text))


def _checkpointed(job: Job) -> Spec:
    return replace(job.spec, train=replace(job.spec.train, checkpointing=True))


def _eight_bit(job: Job) -> Spec:
    """bitsandbytes' Adam, which ZeRO does not take and FSDP's shards of one tensor do not keep in blocks."""
    train, strategy = job.spec.train, job.spec.parallel.strategy
    if train.optimizer.name not in ("adam", "adamw") or strategy not in ("none", "ddp", "dp"):
        return job.spec
    return replace(job.spec, train=replace(train, optimizer=replace(train.optimizer, bits=8)))


def _tiled(job: Job) -> Spec:
    """Samples decoded tile by tile, blended where tiles meet."""
    sample = job.spec.sample
    return replace(job.spec, sample=replace(sample, tiling=True)) if sample is not None and job.vae is not None else job.spec


def _fewer_samples(job: Job) -> list[int]:
    sample = job.spec.sample
    return _halves(sample.batch, 1) if sample is not None else []


def _sampling(job: Job, batch: int) -> Spec:
    sample = job.spec.sample
    return replace(job.spec, sample=replace(sample, batch=batch)) if sample is not None else job.spec


def _shorter(job: Job) -> list[int]:
    """Fewer frames in the samples drawn during training, which change nothing of what is learnt."""
    sample, data = job.spec.sample, job.spec.data
    if sample is None:
        return []
    drawn = replace(data, frames=sample.frames or data.frames)
    return candidates.frames(job.with_spec(replace(job.spec, data=drawn)), fewest=1)


def _shortened(job: Job, frames: int) -> Spec:
    sample = job.spec.sample
    return replace(job.spec, sample=replace(sample, frames=frames)) if sample is not None else job.spec


def _sharded(job: Job) -> Spec:
    """The weights divided over the GPUs at hand, by fully_shard."""
    parallel = job.spec.parallel
    if parallel.gpus < 2 or parallel.pipeline > 1 or parallel.strategy not in ("none", "ddp"):
        return job.spec
    return replace(job.spec, parallel=replace(parallel, strategy="fsdp"))


def _zero_stages(job: Job) -> list[Strategy]:
    """Later stages of DeepSpeed's ZeRO: of a run that has it, and of one with whole copies and an optimizer that it takes."""
    parallel, optimizer = job.spec.parallel, job.spec.train.optimizer
    if parallel.gpus < 2 or not known_to_zero(optimizer):
        return []
    after = {"none": 0, "ddp": 0, "zero1": 1, "zero2": 2}.get(parallel.strategy, len(ZERO_STAGES))
    return [stage for stage in ZERO_STAGES[after:] if parallel.pipeline == 1 or stage in TAKES_STAGES]


def _zero(job: Job, stage: Strategy) -> Spec:
    return replace(job.spec, parallel=replace(job.spec.parallel, strategy=stage))


def _pipelines(job: Job) -> list[int]:
    """More pipeline stages that divide the GPUs, where the blocks run in order and stay where they are."""
    spec, made, layers = job.spec, family(job.network.family), job.dims.get("num_layers")
    parallel = spec.parallel
    takes = parallel.strategy in TAKES_STAGES and not spec.offload.blocks and parallel.sequence == parallel.tensor == 1
    if made is None or not made.in_order or not isinstance(layers, int) or not takes:
        return []
    return [n for n in range(parallel.pipeline + 1, min(parallel.gpus, layers) + 1) if parallel.gpus % n == 0]


def _quantised(name: str, job: Job) -> Spec:
    """Frozen weights kept narrow as `name` says, where each GPU has them whole and none has been narrowed yet."""
    spec = job.spec
    if spec.train.method != "lora" or spec.precision.quantization != "none" or spec.parallel.strategy not in ("none", "ddp"):
        return spec
    return replace(spec, precision=replace(spec.precision, quantization=name))


def _groups(job: Job) -> list[int]:
    """Larger sequence-parallel groups that divide the GPUs and the attention heads."""
    parallel, made = job.spec.parallel, family(job.network.family)
    heads = job.dims.get("num_attention_heads")
    if made is None or not made.divides_sequence or not isinstance(heads, int):
        return []
    larger = range(parallel.sequence + 1, parallel.gpus // parallel.tensor + 1)
    return [ranks for ranks in larger if parallel.gpus % (ranks * parallel.tensor) == 0 and heads % ranks == 0]


def _split(spec: Spec, ranks: int, *, accumulates: bool) -> Spec:
    parallel = spec.parallel
    ring = ranks if 1 < parallel.ring == parallel.sequence else parallel.ring  # nothing but a ring stays that
    return _shared(spec, replace(parallel, sequence=ranks, ring=ring), accumulates=accumulates)


def _shared(spec: Spec, parallel: Parallel, *, accumulates: bool) -> Spec:
    """More GPUs on each sample; fewer samples at once are made up for by accumulation, where that comes out even."""
    samples = spec.train.accumulation * spec.parallel.data_parallel
    even = accumulates and samples % parallel.data_parallel == 0
    train = replace(spec.train, accumulation=samples // parallel.data_parallel) if even else spec.train
    return replace(spec, parallel=parallel, train=train)


def _optimizer_away(job: Job) -> Spec:
    alone = job.spec.parallel.strategy != "fsdp" and job.spec.train.optimizer.bits != 8
    return replace(job.spec, offload=replace(job.spec.offload, optimizer=True)) if alone else job.spec


def _blocks(job: Job) -> list[int]:
    """How many blocks wait on the host, all but one at most; whole weights on each GPU are what is swapped.

    Beside a block of two streams go two of one stream, and two of each kind stay (musubi-tuner, hunyuan_model/models.py:
    enable_block_swap; sd-scripts, flux_models.py): 36 at most of HunyuanVideo, 34 of FLUX.1.
    """
    layers, spec = job.dims.get("num_layers", job.dims.get("n_layers")), job.spec
    whole = spec.parallel.strategy in ("none", "ddp") and not spec.offload.parameters and not spec.offload.layers
    if not isinstance(layers, int) or not whole:
        return []
    mixed = (job.dims.get("num_single_layers") or 0) >= 2 * layers
    return list(range(spec.offload.blocks + 1, 2 * layers - 3 if mixed else layers))


def _swap(job: Job, blocks: int) -> Spec:
    return replace(job.spec, offload=replace(job.spec.offload, blocks=blocks))


def _activations_away(job: Job) -> Spec:
    on = job.spec.train.checkpointing is not False
    return replace(job.spec, offload=replace(job.spec.offload, activations=True)) if on else job.spec


def _layers_away(job: Job) -> Spec:
    """Linear layers that come one at a time, of a run on one GPU that swaps nothing else."""
    away, parallel = job.spec.offload, job.spec.parallel
    if parallel.gpus > 1 or away.blocks or away.layers:
        return job.spec
    return replace(job.spec, offload=replace(away, layers=True))


def _weights_away(job: Job) -> Spec:
    """The shards on the host: FSDP's CPUOffload and ZeRO-3's offload_param."""
    sharded = job.spec.parallel.strategy in ("fsdp", "zero3")
    return replace(job.spec, offload=replace(job.spec.offload, parameters=True)) if sharded else job.spec


def _ranks(job: Job) -> list[int]:
    lora = job.spec.train.lora
    return _halves(lora.rank, LOWEST_RANK) if lora is not None else []


def _rank(job: Job, rank: int) -> Spec:
    """alpha goes along, so that the adapters are scaled as before."""
    lora = job.spec.train.lora
    if lora is None:
        return job.spec
    alpha = lora.alpha * rank / lora.rank if lora.alpha is not None else None
    whole = int(alpha) if alpha is not None and alpha == int(alpha) else alpha
    return replace(job.spec, train=replace(job.spec.train, lora=replace(lora, rank=rank, alpha=whole)))


def _frames(job: Job) -> list[tuple[int]]:
    return [(count,) for count in candidates.frames(job)]


def _halves(number: int, lowest: int) -> list[int]:
    found = []
    while number // 2 >= lowest:
        number //= 2
        found.append(number)
    return found
