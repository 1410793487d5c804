"""What a trace of tensors does not see, each with its source: kernel workspaces, fragmentation, context, NCCL, the error band."""

from __future__ import annotations

from preflight.catalog import Gpu
from preflight.spec import Parallel
from preflight.units import MIB

TOLERANCE = 0.05
"""The error band: every traced step is met within it (tests/test_truth_traces.py enforces this very constant)."""

FRAGMENTATION, FRAGMENTATION_MOST = 0.09, 0.17
"""Reserved beyond allocated, as a part of allocated, where the allocator's segments are not laid out one by one
(memory/reserve.py): 1.09 to 1.17 in the published figures of one run (finetrainers' training logs, max_memory_reserved over
max_memory_allocated). The least is counted of weights that move or are divided otherwise than by FSDP2, and of phases beside the
step; the error band takes the rest. The most is counted of steps of many shapes at once, of which a sweep lays out those that are
near to a limit."""

# aten/src/ATen/cuda/CUDABlas.cpp and CublasHandlePool.cpp, getChosenWorkspaceSize: :4096:2:16:8, on Hopper and later :4096:8
CUBLAS_WORKSPACE = 2 * 4096 * 1024 + 8 * 16 * 1024
CUBLAS_WORKSPACE_HOPPER = 8 * 4096 * 1024
# CublasHandlePool.cpp: myPoolWindow is thread_local, and a step has two threads, ours and autograd's, each with a workspace:
# every published H100 figure of SimpleTuner is 0.04 to 0.05 GiB above its L40S twin, 2 x 32 MiB against 2 x 8.125
CUBLAS_HANDLES = 2

# Measured per communicator on A100 with NVLink by NVIDIA/nccl issue 964; more ranks on a node do not add to it (issue 864)
NCCL_PAIR = 544 * MIB
NCCL_GROUP = 688 * MIB


def cublas_workspace(gpu: Gpu | None) -> int:
    """Bytes torch reserves for one handle of cuBLAS in its own allocator on first use."""
    return CUBLAS_WORKSPACE_HOPPER if gpu is not None and gpu.architecture in ("hopper", "blackwell") else CUBLAS_WORKSPACE


def communicators(parallel: Parallel) -> int:
    """Bytes NCCL holds outside torch's allocator: one communicator over all ranks, one over a sequence or tensor group.

    A hybrid shard has two, its group and its peers in the others (torch/distributed/fsdp/_init_utils.py:
    _init_intra_and_inter_node_groups; torch's device meshes the same way), a pipeline one for each stage it exchanges with, and
    one of its data-parallel peers (deepspeed/runtime/pipe/topology.py: PipelineParallelGrid).
    """
    sizes = [parallel.gpus, parallel.sequence, parallel.tensor]
    if parallel.strategy == "fsdp" and parallel.shard is not None and 1 < parallel.shard < parallel.gpus:
        sizes += [parallel.shard, parallel.gpus // parallel.shard]
    if parallel.pipeline > 1:
        sizes += [2] * min(2, parallel.pipeline - 1)
        sizes += [parallel.data_parallel]
    groups = [size for size in sizes if size > 1]
    if parallel.strategy == "dp":  # one process, copies through peer access
        return 0
    return sum(NCCL_PAIR if size == 2 else NCCL_GROUP for size in groups)


def outside(gpu: Gpu, parallel: Parallel) -> int:
    """Bytes of the card that torch's allocator never gets: CUDA context with its loaded kernels, and NCCL."""
    return gpu.context_bytes + communicators(parallel)


def usable(gpu: Gpu, parallel: Parallel) -> int:
    """Bytes a run may need and still be said to fit: the card less context, NCCL and the error band."""
    return max(0, int((gpu.memory_bytes - outside(gpu, parallel)) * (1 - TOLERANCE)))
