"""Do the GPUs divide as the run wants, and what batch does that make?

What: GPUs = data-parallel degree x sequence x tensor x pipeline, and whole groups of a hybrid shard; attention heads must
divide among the GPUs that exchange them, which a ring of keys and values does not, and a pipeline's stages need a strategy that
takes them. Tensor parallelism is not judged: which weights and activations it divides is each trainer's own plan (finetrainers,
models/ltx_video/base_specification.py: _apply_tensor_parallel_ptd, and NotImplementedError elsewhere; FastVideo's networks are
made of ReplicatedLinear throughout).
Why: GPUs that share a sequence see the same sample, so they do not multiply the batch; a group that divides nothing fails.
Fix: degrees whose product divides the number of GPUs; more accumulation for the batch that was meant.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.memory.stages import TAKES_STAGES

DEGREES = ("sequence", "tensor", "pipeline")
DECIDES = True  # an error here leaves the memory unknown


def check(case: Case) -> Answers:
    parallel, train = case.job.spec.parallel, case.job.spec.train
    group = parallel.group
    if parallel.gpus % group:
        degrees = {name: getattr(parallel, name) for name in DEGREES}
        largest = max(degrees, key=lambda name: degrees[name])
        product = " x ".join(name for name in DEGREES if degrees[name] > 1)
        message = f"{parallel.gpus} GPUs cannot be divided into groups of {group} ({product})."
        yield Found("error", message, f"parallel.{largest}")
        return
    if parallel.gpus % parallel.shards:
        message = f"{parallel.gpus} GPUs cannot be divided into groups of {parallel.shards} that each hold all shards."
        yield Found("error", message, "parallel.shard")
        return
    if parallel.tensor > 1:
        message = (
            "Cannot judge: tensor parallelism is not modelled, as no trainer that is read has a plan for a whole network; "
            "what is said is as if nothing were divided."
        )
        yield Found("error", message, "parallel.tensor")
    if parallel.pipeline > 1:
        yield from _pipeline(case)
    yield from _sequence(case)
    if group > 1:
        shared = next(name for name in DEGREES if getattr(parallel, name) > 1)
        naive = train.batch * train.accumulation * parallel.gpus
        effective = case.job.spec.effective_batch
        message = (
            f"The effective batch is {effective}, not {naive}: {group} GPUs share each sample, "
            f"so the data-parallel degree is {parallel.data_parallel}."
        )
        yield Found("warning", message, f"parallel.{shared}")


def _sequence(case: Case) -> Answers:
    parallel, heads = case.job.spec.parallel, case.job.dims.get("num_attention_heads")
    if parallel.sequence % parallel.ring:
        message = f"{parallel.sequence} GPUs that share a sample cannot be divided into rings of {parallel.ring}."
        yield Found("error", message, "parallel.ring")
        return
    if parallel.ring > 1 and parallel.sequence_code == "yunchang":
        message = "Cannot judge: a ring of keys and values is modelled as diffusers and torch write it, not yunchang."
        yield Found("error", message, "parallel.ring", fix="parallel.sequence_code: diffusers")
    train = case.job.spec.train
    if parallel.ring > 1 and parallel.sequence_code == "diffusers" and train.checkpointing is not False and not train.use_reentrant:
        message = "diffusers' ring reads what it saved twice, which torch's checkpoints refuse: the first backward pass stops."
        yield Found("error", message, "parallel.ring", fix="a ring of 1, so that heads are exchanged, or no checkpointing")
    groups = parallel.sequence // parallel.ring
    if isinstance(heads, int) and heads % groups:
        message = f"The {heads} attention heads cannot be divided among {groups} sequence-parallel GPUs."
        yield Found("error", message, "parallel.sequence")


def _pipeline(case: Case) -> Answers:
    parallel, accumulation = case.job.spec.parallel, case.job.spec.train.accumulation
    if parallel.strategy not in TAKES_STAGES:
        message = f"Cannot judge: pipeline stages do not go with {parallel.strategy}; expected {', '.join(TAKES_STAGES)}."
        yield Found("error", message, "parallel.strategy")
    if case.job.spec.offload.blocks:
        message = "Cannot judge: blocks are swapped within one GPU's whole network, not within pipeline stages."
        yield Found("error", message, "offload.blocks", fix="1 pipeline stage, or 0 swapped blocks")
    if accumulation < parallel.pipeline:
        idle = parallel.pipeline - 1
        message = (
            f"{parallel.pipeline} pipeline stages share {accumulation} micro-batch{'es' * (accumulation > 1)} a step, so each is "
            f"idle for {idle / (accumulation + idle):.0%} of it."
        )
        yield Found("note", message, "train.accumulation", fix=f"accumulation of {4 * parallel.pipeline}")
