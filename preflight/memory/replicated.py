"""Every rank has the whole model: torch's DistributedDataParallel and DataParallel."""

from __future__ import annotations

from dataclasses import replace

from preflight.job import Job
from preflight.memory.model import Model
from preflight.memory.rank import Rank, whole
from preflight.tape.dtypes import BYTES
from preflight.tape.meter import rounded
from preflight.tape.parallel import Parallel
from preflight.tape.replicas import Replicas
from preflight.tape.tensor import Tape


def distributed(job: Job, model: Model) -> Rank:
    """DistributedDataParallel: gradients and, beside them, the buckets that they are copied into and out of.

    torch/nn/parallel/distributed.py: gradient_as_bucket_view is False by default. reducer.hpp: one bucket for all gradients in the
    first iteration (find_unused_parameters is False), then they are rebuilt in the order gradients arrived, 1 MiB first and 25 MiB
    each; initialize_buckets lets go of the old before it makes the new, so that their sum is the gradients' size at all times.
    """
    found = whole(job, model)
    if job.spec.parallel.data_parallel == 1:
        return found
    return replace(found, buffers=int(rounded(sum(p.numel * BYTES[p.dtype] * p.copies for p in model.trainable))))


def first_of_replicas(job: Job, model: Model, tape: Tape) -> Parallel:
    """DataParallel's first GPU, which needs most."""
    count = job.spec.parallel.data_parallel
    return Replicas(tape, model.network, model.trainable, count) if count > 1 else Parallel()
