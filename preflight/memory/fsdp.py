"""FSDP2: each parameter divided by rows between all ranks (torch/distributed/fsdp/_fully_shard/_fsdp_param.py)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import groupby
from operator import attrgetter

from preflight.job import Job
from preflight.memory.model import Model
from preflight.memory.rank import Rank, piece, total
from preflight.tape.flat import Flat, flat_numel, flattened
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
    parallel = job.spec.parallel
    if trained and _apart(job, model):
        return model.trainable
    if parallel.fsdp_version == 1:
        return tuple(_pieces(job, model, trained=trained))
    return tuple(_shard(p, parallel.shards) for p in model.parameters if p.requires_grad is trained)


def _apart(job: Job, model: Model) -> tuple[Parameter, ...]:
    """Adapters that were added to a network that is sharded already: every rank has them whole."""
    lora = job.spec.train.lora
    return model.trainable if model.adapters and lora is not None and not lora.sharded else ()


def one_block(job: Job, model: Model) -> int:
    """fully_shard moves one module's parameters to the GPU whole before it divides them (_fsdp_init.py: _move_states_to_device).

    FSDP1 does so with `device_id` (_init_utils.py: _move_module_to_device). On the meta device there is nothing to move.
    """
    parallel = job.spec.parallel
    return _unit_bytes(job, model) if parallel.shards > 1 and parallel.loading != "sharded" else 0


def saving(job: Job, model: Model) -> int:
    """A whole state dict is gathered one parameter at a time (distributed/_state_dict_utils.py: _gather_state_dict).

    FSDP1 gathers a unit at a time (fsdp/_state_dict_utils.py: _full_pre_state_dict_hook), which is what is counted, and of FSDP2 a
    block; of adapters alone their own bytes at most.
    """
    if job.spec.parallel.shards == 1:
        return 0
    unit = _unit_bytes(job, model) if job.spec.parallel.fsdp_version == 1 else model.block_bytes
    return min(unit, model.trainable_bytes) if model.adapters else unit


def _unit_bytes(job: Job, model: Model) -> int:
    """The largest unit's parameters, the whole network's where that is the only one."""
    return total(model.parameters) if job.spec.parallel.wrap == "whole" else model.block_bytes


def during_step(job: Job, model: Model, tape: Tape) -> Parallel:
    parallel = job.spec.parallel
    make = (
        partial(Sharding, apart=_apart(job, model))
        if parallel.fsdp_version != 1
        else partial(Flat, prefetch=parallel.backward_prefetch, ahead=parallel.forward_prefetch)
    )
    return make(
        tape,
        model.network,
        parallel.shards,
        reshard=parallel.reshard,
        compute=parallel.compute,
        reduce=parallel.reduce,
        offload=job.spec.offload.parameters,
        whole_gradients=parallel.no_sync and job.spec.train.accumulation > 1,
        one_unit=parallel.wrap == "whole",
    )


def _pieces(job: Job, model: Model, *, trained: bool) -> Iterator[Parameter]:
    """FSDP 1: this rank's part of each unit's flat parameter, the rank that has most of what trains.

    Adapters lie in the flat parameter where their layers do, which is not in all parts alike (_flat_param.py: _get_shard_metadata).
    """
    units = list(_units(job, model))
    shares = [_trained_shares(unit, job) for unit in units]
    most: dict[int, int] = {}
    for unit, share in zip(units, shares, strict=True):
        for number, elements in share.items():
            most[number] = most.get(number, 0) + elements * _copies(unit, job)
    busiest = max(most, key=lambda number: (most[number], -number), default=0)
    for unit, share in zip(units, shares, strict=True):
        whole = flat_numel((p.numel for p in unit), job.spec.parallel.shards, _gathered_in(unit, job)) // job.spec.parallel.shards
        mine = share.get(busiest, 0)
        elements = mine if trained else whole - mine
        if elements > 0:
            part = piece((elements,), unit[0].dtype, _copies(unit, job))
            part.requires_grad = trained
            yield part


def _copies(unit: list[Parameter], job: Job) -> int:
    return 1 if job.spec.parallel.wrap == "whole" else unit[0].copies


def _units(job: Job, model: Model) -> Iterator[list[Parameter]]:
    if job.spec.parallel.wrap == "whole":
        runs = ((copies, list(run)) for copies, run in groupby(model.parameters, key=attrgetter("copies")))  # a block and its likes
        yield [p for copies, run in runs for _ in range(copies) for p in run]
        return
    blocks = [[p for _, p in block.parameters()] for block in model.network.block_modules()]
    everything = [p for _, p in model.network.parameters()]  # counts the copies again, which a block's own view knows nothing of
    inside = {p for block in blocks for p in block}
    root = [p for p in everything if p not in inside]
    yield from (unit for unit in (root, *blocks) if unit)


def _trained_shares(unit: list[Parameter], job: Job) -> dict[int, int]:
    """Elements that train, by the number of the rank in whose part they lie; a unit that trains whole is padded with its own."""
    ranks, dtype = job.spec.parallel.shards, _gathered_in(unit, job)
    sizes = [p.numel for p in unit]
    starts, _ = flattened(sizes, dtype)
    size = flat_numel(sizes, ranks, dtype) // ranks
    if all(p.requires_grad for p in unit):
        return dict.fromkeys(range(ranks), size)
    found: dict[int, int] = {}
    for parameter, start in zip(unit, starts, strict=True):
        if parameter.requires_grad:
            end = start + parameter.numel
            for number in range(start // size, (end - 1) // size + 1):
                inside = min(end, (number + 1) * size) - max(start, number * size)
                found[number] = found.get(number, 0) + inside
    return found


def _gathered_in(unit: list[Parameter], job: Job) -> str:
    return job.spec.parallel.compute or unit[0].dtype


def _shard(parameter: Parameter, ranks: int) -> Parameter:
    rows, *rest = parameter.shape or (1,)
    part = piece((padded(parameter, ranks) // (parameter.numel // rows) // ranks, *rest), parameter.dtype, parameter.copies)
    part.requires_grad = parameter.requires_grad
    return Quantized(part, parameter.form) if isinstance(parameter, Quantized) else part
