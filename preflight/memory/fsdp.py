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

    Every rank of the run takes part, those that share a sample's tokens too, as diffusers and Wan's own distributed code do; in a
    hybrid shard those of one group. The groups then add up their shards' gradients in place (_fsdp_collectives.py: foreach_reduce),
    where a block's shard lives one block longer if it is reduced in another dtype: that is not counted.
    """
    block = -(-model.block_bytes // job.spec.parallel.shards)
    if job.spec.offload.parameters:  # gradients and states are where the shards are
        return Rank(trainable=(), trained=0, frozen=model.buffer_bytes, block=0)
    trained, frozen = shards(job, model, trained=True), shards(job, model, trained=False)
    return Rank(trainable=trained, trained=total(trained), frozen=total(frozen) + model.buffer_bytes, block=block)


def shards(job: Job, model: Model, *, trained: bool) -> tuple[Parameter, ...]:
    """The first rank's part of what trains, or of what does not."""
    return tuple(_shard(p, job.spec.parallel.shards) for p in model.parameters if p.requires_grad is trained)


def one_block(job: Job, model: Model) -> int:
    """fully_shard moves one module's parameters to the GPU whole before it divides them (_fsdp_init.py: _move_states_to_device).

    FSDP1 does so with `device_id` (_init_utils.py: _move_module_to_device). On the meta device there is nothing to move.
    """
    parallel = job.spec.parallel
    return model.block_bytes if parallel.shards > 1 and parallel.loading != "sharded" else 0


def saving(job: Job, model: Model) -> int:
    """A whole state dict is gathered one parameter at a time (distributed/_state_dict_utils.py: _gather_state_dict).

    FSDP1 gathers a block at a time (fsdp/_state_dict_utils.py: _full_pre_state_dict_hook), which is what is counted; of adapters
    alone their own bytes at most.
    """
    if job.spec.parallel.shards == 1:
        return 0
    return min(model.block_bytes, model.trainable_bytes) if model.adapters else model.block_bytes


def during_step(job: Job, model: Model, tape: Tape) -> Parallel:
    parallel = job.spec.parallel
    return Sharding(
        tape,
        model.network,
        parallel.shards,
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
