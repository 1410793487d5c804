"""FSDP2: each parameter divided by rows between all ranks (torch/distributed/fsdp/_fully_shard/_fsdp_param.py)."""

from __future__ import annotations

from preflight.job import Job
from preflight.memory.model import Model
from preflight.memory.rank import Rank, piece, total
from preflight.tape.parallel import Parallel
from preflight.tape.quantized import Quantized
from preflight.tape.sharding import Sharding, padded
from preflight.tape.tensor import Parameter, Tape


def rank(job: Job, model: Model) -> Rank:
    """The first rank's shards, which are never shorter than another's. With offloaded parameters they are in host memory.

    Every rank of the run takes part, those that share a sample's tokens too, as diffusers and Wan's own distributed code do.
    """
    ranks = job.spec.parallel.gpus
    shards = [_shard(p, ranks) for p in model.parameters]
    trained, frozen = (tuple(s for s in shards if s.requires_grad is wanted) for wanted in (True, False))
    block = -(-model.block_bytes // ranks)
    if job.spec.offload.parameters:  # gradients and states are where the shards are
        return Rank(trainable=(), trained=0, frozen=model.buffer_bytes, block=0)
    return Rank(trainable=trained, trained=total(trained), frozen=total(frozen) + model.buffer_bytes, block=block)


def during_step(job: Job, model: Model, tape: Tape) -> Parallel:
    parallel = job.spec.parallel
    return Sharding(
        tape,
        model.network,
        parallel.gpus,
        reshard=parallel.reshard,
        compute=parallel.compute,
        reduce=parallel.reduce,
        offload=job.spec.offload.parameters,
    )


def _shard(parameter: Parameter, ranks: int) -> Parameter:
    rows, *rest = parameter.shape or (1,)
    part = piece((padded(parameter, ranks) // (parameter.numel // rows) // ranks, *rest), parameter.dtype, parameter.copies)
    part.requires_grad = parameter.requires_grad
    return Quantized(part, parameter.form) if isinstance(parameter, Quantized) else part
