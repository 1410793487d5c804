"""Which share of each state one GPU holds (first order: states and tokens divided, one block gathered ahead)."""

from __future__ import annotations

from dataclasses import dataclass

from preflight.spec import Parallel


@dataclass(frozen=True, kw_only=True, slots=True)
class Shares:
    """Number of ranks each state is divided between; 1 means that every GPU has all of it."""

    weights: int = 1
    gradients: int = 1
    optimizer: int = 1


# Rajbhandari et al. 2020 (ZeRO, arXiv 1910.02054), section 5: P_os, P_os+g, P_os+g+p. FSDP's full shard divides all three;
# it shards over every rank, sequence-parallel ones too, as Wan's own distributed code and diffusers do.
def shares(parallel: Parallel) -> Shares:
    """The ranks between which the run's strategy divides weights, gradients and optimizer states."""
    data = parallel.data_parallel
    return {
        "fsdp": Shares(weights=parallel.gpus, gradients=parallel.gpus, optimizer=parallel.gpus),
        "zero1": Shares(optimizer=data),
        "zero2": Shares(gradients=data, optimizer=data),
        "zero3": Shares(weights=data, gradients=data, optimizer=data),
    }.get(parallel.strategy, Shares())


# deepspeed/runtime/zero/config.py: reduce_bucket_size, in elements; stage_1_and_2.py makes its ipg_buffer of that size
REDUCE_BUCKET = 500_000_000


def buckets(parallel: Parallel, gradient_bytes: int, element_bytes: int) -> int:
    """Bytes of communication buffers that stay between steps.

    DistributedDataParallel copies gradients into buckets of their total size (gradient_as_bucket_view is False by default:
    torch/nn/parallel/distributed.py); DeepSpeed's stages 1 and 2 fill one bucket of a fixed size.
    """
    if parallel.strategy == "ddp" and parallel.data_parallel > 1:
        return gradient_bytes
    return REDUCE_BUCKET * element_bytes if parallel.strategy in ("zero1", "zero2") else 0


GATHERED_BLOCKS = 2  # torch/distributed/fsdp: the block at work and the one prefetched; DeepSpeed prefetches one bucket as well


def per_rank(nbytes: int, ranks: int) -> int:
    """One rank's part, rounded up: shards are padded to equal size."""
    return -(-nbytes // ranks)
