"""DeepSpeed's ZeRO: optimizer states (stage 1), gradients (2) and weights (3) divided between the ranks.

Files are those of deepspeed/runtime/zero/. In stages 1 and 2 every rank has all weights. Whatever the stage, the optimizer updates
a flat tensor, the rank's float32 master partition, beside weights of less precision; stages 1 and 2 clone it even where the weights
are float32 (stage_1_and_2.py: weights_partition), stage 3 then does not (stage3.py: _create_fp32_partitions).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace

from preflight.job import Job
from preflight.memory.model import Model
from preflight.memory.rank import Rank, piece
from preflight.spec import Optimizer, Spec
from preflight.tape.dtypes import BYTES
from preflight.tape.meter import rounded
from preflight.tape.parallel import Parallel
from preflight.tape.reducing import Bucket, Reducing
from preflight.tape.tensor import Parameter, Tape


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Keys of `zero_optimization` with their defaults (config.py: DeepSpeedZeroConfig); sizes in elements."""

    contiguous_gradients: bool = True
    reduce_scatter: bool = True
    reduce_bucket_size: int = 500_000_000
    overlap_comm: bool | None = None  # None: only in stage 3 (overlap_comm_valid)
    sub_group_size: int = 1_000_000_000
    prefetch_bucket_size: int = 50_000_000
    param_persistence_threshold: int = 100_000
    max_live_parameters: int = 1_000_000_000
    max_reuse_distance: int = 1_000_000_000


#: utils.py: ZERO_SUPPORTED_OPTIMIZERS, and the names by which DeepSpeed makes them itself
KNOWN = frozenset({"adam", "adamw", "fusedadam", "deepspeedcpuadam", "adagrad", "torchadam", "torchadamw", "adamwtorch", "muon"})
DEFAULTS = Settings()
BITS_OF_WHOLE = 32
ALIGNMENT = 2  # stage_1_and_2.py: nccl_start_alignment_factor, times the ranks


def configured(spec: Spec) -> Settings:
    """DeepSpeed's defaults, and what the spec says instead."""
    zero = spec.parallel.zero
    said = {f.name: getattr(zero, f.name) for f in fields(Settings)} if zero is not None else {}
    return replace(DEFAULTS, **{name: value for name, value in said.items() if value is not None})


def known_to_zero(optimizer: Optimizer) -> bool:
    """Whether DeepSpeed takes it without zero_allow_untested_optimizer (runtime/engine.py: _configure_optimizer)."""
    return re.sub(r"[^a-z0-9]", "", optimizer.name.lower()) in KNOWN and optimizer.bits == BITS_OF_WHOLE


def partitioned(job: Job, model: Model) -> Rank:
    """Stages 1 and 2: whole weights in one flat buffer, a partition of it to update."""
    dtype = _dtype(model)
    element = BYTES[dtype]
    largest = max((p.numel for p in model.trainable), default=0)
    return Rank(
        trainable=(piece((_partition(job, model),), dtype),),
        trained=int(rounded(_partition(job, model) * _ranks(job) * element)),
        frozen=0 if job.spec.offload.parameters else model.frozen_bytes,
        block=model.block_bytes,
        # stage_1_and_2.py: temp_grad_buffer_for_gpu_offload
        buffers=int(rounded(largest * element)) if job.spec.offload.optimizer else 0,
    )


def sharded(job: Job, model: Model, settings: Settings | None = None) -> Rank:
    """Stage 3: each parameter flattened and divided (partition_parameters.py: _partition_param), what trains in one flat buffer.

    The reduction's bucket and the flat buffer of this rank's gradients stay for good (stage3.py: _setup_for_real_optimizer). With
    offloaded parameters the partitions are in host memory. Parameters of at most the persistence threshold are never given up
    (parameter_offload.py: mark_persistent_parameters), nor after the optimizer's step, which gathers them anew (stage3.py: step).
    """
    settings = settings or configured(job.spec)
    ranks, dtype, offload = _ranks(job), _dtype(model), job.spec.offload
    element = BYTES[dtype]
    trained = sum(-(-p.numel // ranks) * p.copies for p in model.trainable)
    frozen = sum(_part(p, ranks) for p in model.parameters if not p.requires_grad)
    gradients = 0 if offload.optimizer else int(rounded(trained * element))
    bucket = int(rounded(settings.reduce_bucket_size * element)) if settings.contiguous_gradients else 0
    apart = ranks > 1 or offload.parameters
    return Rank(
        trainable=tuple(piece((n,), dtype) for n in _sub_groups(trained, settings.sub_group_size)),
        trained=0 if offload.parameters else int(rounded(trained * element)),
        frozen=(0 if offload.parameters else frozen) + model.buffer_bytes + (_persistent(model, settings) if apart else 0),
        block=0 if offload.parameters else -(-model.block_bytes // ranks),
        buffers=bucket + gradients,
        gathered=_gathered(job, model, settings) if apart else 0,
    )


def arriving(job: Job, model: Model) -> int:
    """Stage 3: without zero.Init the whole model is moved to the GPU and then divided (runtime/engine.py:
    _configure_distributed_model); with it one layer at a time is.
    """
    if _ranks(job) == 1 and not job.spec.offload.parameters:
        return 0
    if job.spec.parallel.loading == "sharded":
        return max((p.nbytes for p in model.parameters), default=0)
    stays = sharded(job, model)
    return max(0, model.trainable_bytes + model.frozen_bytes - stays.trained - stays.frozen)


def saving(job: Job, model: Model) -> int:
    """Stage 3: weights are gathered a module at a time (runtime/engine.py: _zero3_consolidated_16bit_state_dict)."""
    saved = model.trainable if model.adapters else model.parameters
    return max((p.nbytes for p in saved), default=0) if _ranks(job) > 1 else 0


def partition_bytes(job: Job, model: Model) -> int:
    """Stage 3: one rank's part of all weights, wherever it lies."""
    ranks, element = _ranks(job), BYTES[_dtype(model)]
    trained = sum(-(-p.numel // ranks) * p.copies for p in model.trainable)
    return int(rounded(trained * element)) + sum(_part(p, ranks) for p in model.parameters if not p.requires_grad)


def kept_bytes(job: Job, model: Model) -> int:
    """Stages 1 and 2: the gradients that one rank keeps."""
    return _kept(job, model) * BYTES[_dtype(model)]


def during_step(job: Job, model: Model, tape: Tape, settings: Settings | None = None) -> Parallel:
    """How the stage takes gradients away."""
    settings, stage = settings or configured(job.spec), int(job.spec.parallel.strategy[-1])
    element, overlap = _dtype(model), settings.overlap_comm if settings.overlap_comm is not None else stage == 3
    # stage 3 has its bucket and its part resident; elsewhere setup_buckets makes one, or two that take turns
    buffers = 0 if stage == 3 or not settings.contiguous_gradients else 2 if overlap else 1
    kept = 0 if stage == 3 or job.spec.offload.optimizer else _kept(job, model)
    bucket = Bucket(
        elements=settings.reduce_bucket_size,
        buffers=buffers,
        early=stage > 1,
        # stage_1_and_2.py: allreduce_bucket flattens; coalesced_collectives.py: reduce_scatter_coalesced interleaves
        copied=settings.reduce_scatter,
        kept=kept,
        dtype=element,
    )
    return Reducing(tape, model.trainable, bucket)


def _ranks(job: Job) -> int:
    """Those that share a sample's tokens take part (deepspeed/runtime/engine.py: dp_process_group=self.seq_data_parallel_group)."""
    parallel = job.spec.parallel
    return max(1, parallel.gpus // (parallel.tensor * parallel.pipeline))


def _dtype(model: Model) -> str:
    return next((p.dtype for p in model.trainable), "fp32")


def _partition(job: Job, model: Model) -> int:
    """Elements of one rank's partition: the flat buffer is padded to a multiple of the alignment."""
    ranks = _ranks(job)
    return -(-model.trainable_count // (ALIGNMENT * ranks)) * ALIGNMENT


def _kept(job: Job, model: Model) -> int:
    """stage_1_and_2.py, copy_grads_in_partition: every parameter that reaches into the partition, whole."""
    largest = max((p.numel for p in model.trainable), default=0)
    return min(model.trainable_count, _partition(job, model) + largest if _ranks(job) > 1 else model.trainable_count)


def _part(parameter: Parameter, ranks: int) -> int:
    return int(rounded(-(-parameter.nbytes // ranks))) * parameter.copies


def _sub_groups(elements: int, size: int) -> Iterator[int]:
    """stage3.py, _create_fp16_sub_groups: what one call of the optimizer updates."""
    while elements > 0:
        yield min(elements, size)
        elements -= size


def _persistent(model: Model, settings: Settings) -> int:
    return _size(p for p in model.parameters if p.numel <= settings.param_persistence_threshold)


def _gathered(job: Job, model: Model, settings: Settings) -> int:
    """Other ranks' weights at the step's worst moment, the start of the backward pass, those that are persistent apart.

    Those that are used again within `max_reuse_distance` elements stay (partitioned_param_coordinator.py:
    __params_to_release): going back from the end of the forward pass, each is met once more, and once more again where a checkpoint
    runs it twice. Every module that is reached fetches a bucket further ahead, until `max_live_parameters` are there
    (fetch_sub_module); what was fetched last lies in one buffer until the whole of it has been copied out
    (AllGatherCoalescedHandle.wait).
    """
    others = [p for p in model.parameters if p.numel > settings.param_persistence_threshold]
    elements = sum(p.numel * p.copies for p in others)
    if not elements:
        return 0
    meetings = 3 if job.spec.train.checkpointing else 2
    module = max(p.numel for p in others)
    ahead = min(settings.prefetch_bucket_size, settings.max_live_parameters, elements)
    kept = max(settings.max_reuse_distance // meetings, module) + ahead
    live = min(elements, max(kept, settings.max_live_parameters) if ahead else kept)
    live += ahead if live < elements else 0  # everything is there: nothing more is fetched
    return int(rounded(_size(others) * live // elements))


def _size(parameters: Iterable[Parameter]) -> int:
    return sum(p.nbytes * p.copies for p in parameters)
