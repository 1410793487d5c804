"""Do the GPUs divide as the run wants, and what batch does that make?

What: GPUs = data-parallel degree x sequence x tensor, and whole groups of a hybrid shard; attention heads must divide among
the sequence group.
Why: GPUs that share a sequence see the same sample, so they do not multiply the batch; a group that divides nothing fails.
Fix: degrees whose product divides the number of GPUs; more accumulation for the batch that was meant.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found

DECIDES = True  # an error here leaves the memory unknown


def check(case: Case) -> Answers:
    parallel, train = case.job.spec.parallel, case.job.spec.train
    group = parallel.sequence * parallel.tensor
    if parallel.gpus % group:
        message = f"{parallel.gpus} GPUs cannot be divided into groups of {group} (sequence x tensor)."
        yield Found("error", message, "parallel.sequence")
        return
    if parallel.gpus % parallel.shards:
        message = f"{parallel.gpus} GPUs cannot be divided into groups of {parallel.shards} that each hold all shards."
        yield Found("error", message, "parallel.shard")
        return
    if parallel.tensor > 1:
        message = "Tensor parallelism divides no weights and no activations here, so less is needed than what is said."
        yield Found("warning", message, "parallel.tensor")
    heads = case.job.dims.get("num_attention_heads")
    if isinstance(heads, int) and heads % parallel.sequence:
        message = f"The {heads} attention heads cannot be divided among {parallel.sequence} sequence-parallel GPUs."
        yield Found("error", message, "parallel.sequence")
    if group > 1:
        naive = train.batch * train.accumulation * parallel.gpus
        effective = case.job.spec.effective_batch
        message = (
            f"The effective batch is {effective}, not {naive}: {group} GPUs share each sample, "
            f"so the data-parallel degree is {parallel.data_parallel}."
        )
        yield Found("warning", message, "parallel.sequence")
