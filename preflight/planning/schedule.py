"""How many optimizer steps a run has, and how the same run is spread over other numbers of GPUs."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from preflight.spec import Spec


def steps_in_epochs(samples: int, epochs: float, effective_batch: int) -> int:
    """Optimizer steps of so many epochs, of whole batches only, as trainers that drop the last one count; at least one."""
    return max(1, int(max(1, samples // effective_batch) * epochs))


def steps_for(samples: int, effective_batch: int) -> int:
    """The fewest optimizer steps that show so many samples."""
    return max(1, -(-samples // effective_batch))


def on_gpus(spec: Spec, gpus: int) -> Spec | None:
    """The run on so many GPUs, with the accumulation that keeps its effective batch or comes nearest above it.

    None where the GPUs do not divide into replicas of the run's sequence and tensor parallelism. Without a strategy, several
    GPUs are taken to run DistributedDataParallel, and one GPU none of it.
    """
    parallel = spec.parallel
    replica = parallel.sequence * parallel.tensor
    if gpus % replica:
        return None
    strategy = parallel.strategy
    if gpus == 1 and strategy in ("dp", "ddp"):
        strategy = "none"
    elif gpus > 1 and strategy == "none":
        strategy = "ddp"
    per_node = max(1, parallel.gpus // parallel.nodes)
    nodes = parallel.nodes if gpus == parallel.gpus else ceil(gpus / max(per_node, 8))
    changed = replace(parallel, gpus=gpus, nodes=nodes, strategy=strategy)
    accumulation = ceil(spec.effective_batch / (spec.train.batch * changed.data_parallel))
    return replace(spec, parallel=changed, train=replace(spec.train, accumulation=max(1, accumulation)))
