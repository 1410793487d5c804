"""What one GPU holds, line by line, and the rule by which it is that much. The rules themselves are in the strategies' modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from preflight.job import Job
from preflight.memory import zero
from preflight.memory.budget import Budget
from preflight.memory.distillation import Role
from preflight.memory.model import Model
from preflight.memory.pixels import kept
from preflight.memory.step import attention_kernel
from preflight.spec import Spec
from preflight.units import count, gib

NEARLY = 0.99  # below this part of their highest, activations at the step's worst moment are worth a word


class Held(NamedTuple):
    """Bytes on the busiest GPU, and why."""

    name: str
    nbytes: int
    rule: str


#: What a strategy does with the weights, and with the optimizer's states.
WEIGHTS = {
    "none": "whole",
    "dp": "whole, and copied to the other GPUs anew for each step",
    "ddp": "whole on each GPU",
    "fsdp": "each parameter is divided by rows between {ranks}, and a block's are gathered while it computes",
    "fsdp whole": "each parameter is divided by rows between {ranks}, and all are gathered at once: no block is wrapped by itself",
    "fsdp 1": "each block's parameters are one flat one, divided between {ranks} and gathered while the block computes",
    "fsdp 1 whole": "one flat parameter, divided between {ranks} and gathered at once: no block is wrapped by itself",
    "zero1": "whole on each GPU, what trains in one flat buffer",
    "zero2": "whole on each GPU, what trains in one flat buffer",
    "zero3": "each parameter is flattened and divided between {ranks}; those of at most {threshold:,} elements stay gathered",
}
STATES = {
    "none": "",
    "dp": "",
    "ddp": "whole on each GPU",
    "fsdp": "for this GPU's rows",
    "zero1": "for one of {ranks_} equal parts of the flat buffer",
    "zero2": "for one of {ranks_} equal parts of the flat buffer",
    "zero3": "for this GPU's parts",
}
BUCKETS = {
    "ddp": "gradients are copied into buckets of 25 MiB (gradient_as_bucket_view is off)",
    "zero1": "a buffer for the largest gradient on its way to the host",
    "zero2": "a buffer for the largest gradient on its way to the host",
    "zero3": "a bucket of {bucket:,} elements that gradients are reduced in, and this GPU's part of them",
}
GRADIENTS = {
    "fsdp": "reduced and divided as the weights are, {unit}",
    "zero1": "whole until the end of the backward pass, then this GPU's part",
    "zero2": "collected in a bucket of {bucket:,} elements, reduced when it is full, this GPU's part kept",
    "zero3": "collected in a bucket of {bucket:,} elements, reduced when it is full, this GPU's part kept",
}
ON_HOST = {
    "zero1": "whole until the end of the backward pass, then this GPU's part goes to the host",
    "zero2": "collected in a bucket of {bucket:,} elements, reduced when it is full, this GPU's part goes to the host",
}


#: Where checkpoints' inputs wait.
AWAY = {False: "", True: ", the hidden states on the host", "saved": ", whatever checkpoints are given on the host"}


def held(job: Job, model: Model, budget: Budget) -> Iterator[Held]:
    """Every line that is not nothing, or is nothing because it is on the host."""
    for line in _lines(job, model, budget):
        if line.nbytes or "on the host" in line.rule:
            yield line


def _lines(job: Job, model: Model, budget: Budget) -> Iterator[Held]:
    spec, resident = job.spec, budget.resident
    strategy = spec.parallel.strategy
    yield Held("network", resident.network, _network(job, model))
    for name, role in (("teacher", budget.beside.teacher), ("critic", budget.beside.critic)):
        if role is not None:
            yield Held(name, getattr(resident, name), _beside(role, name))
    if model.adapters and spec.train.lora is not None:
        lora = spec.train.lora
        rank = f" of rank {lora.rank}" if lora.factor is None else ""
        rule = f"{count(model.trainable_count, 'parameter')}{rank} in {lora.dtype}"
        yield Held("adapters", resident.adapters, rule)
    gradients = ON_HOST if spec.offload.optimizer and strategy in ON_HOST else GRADIENTS
    yield Held("gradients", int(budget.step.gradients), _said(gradients.get(strategy, "of what trains"), spec))
    yield Held("optimizer", resident.optimizer, _states(spec))
    yield Held("buckets", resident.buckets, _said(BUCKETS.get(strategy, "for communication"), spec))
    for name, nbytes in resident.encoders.items():
        idle = job.vae is not None and name == job.vae.id and spec.data.latents == "cached"
        yield Held(name, nbytes, "stays though latents are cached" if idle else "encodes every batch, so it stays")
    yield Held("ema", resident.ema, f"a copy of what trains{_in(spec.train.ema_dtype)}, on each GPU")
    yield Held("gathered", budget.gathered, _gathered(spec))
    yield Held("pixels", int(budget.pixels), _pixels(spec))
    beside = budget.gathered + int(budget.pixels)
    yield Held("activations", int(budget.activations) - beside, _activations(job, model, budget))


def _network(job: Job, model: Model) -> str:
    spec = job.spec
    rule = _said(WEIGHTS[_written(spec)], spec)
    stage = model.stage
    if stage is not None:
        rule = f"stage {stage.number + 1} of {stage.of}, layers {stage.start} to {stage.stop - 1} of {stage.layers}, {rule}"
    if spec.model.experts != "one":
        rule = f"{'both experts' if spec.model.experts == 'both' else 'one of two experts, the idle one on the host'}, {rule}"
    own = model.parameter_count - (model.trainable_count if model.adapters else 0)
    rule += f"; {count(own, 'parameter')} in {spec.precision.weights}"
    if spec.precision.quantization != "none":
        rule += f", frozen linear layers as {spec.precision.quantization}"
    if spec.offload.parameters:
        return f"{rule}; {'all' if spec.parallel.strategy in ('fsdp', 'zero3') else 'frozen ones'} wait on the host"
    if spec.offload.blocks:
        rule += f"; {count(spec.offload.blocks, 'block')} of {gib(model.block_bytes)} wait on the host"
    return f"{rule}; linear layers in blocks wait on the host" if spec.offload.layers else rule


def _beside(role: Role, name: str) -> str:
    what = f"{role.job.network.name}, {'frozen' if name == 'teacher' else 'trained as the network is'}"
    return f"{what}; {count(role.model.parameter_count, 'parameter')} in {role.job.spec.precision.weights}"


def _states(spec: Spec) -> str:
    chosen = spec.train.optimizer
    rule = f"{chosen.name}'s states" + (f" in {chosen.bits} bits" if chosen.bits != 32 else "")
    if spec.precision.master is not None or spec.parallel.strategy.startswith("zero"):
        rule += " and the float32 weights it updates"
    part = _said(STATES[spec.parallel.strategy], spec)
    rule += f", {part}" if part else ""
    on_host = spec.offload.optimizer or (spec.parallel.strategy == "fsdp" and spec.offload.parameters)
    return f"{rule}; on the host" if on_host else rule


def _gathered(spec: Spec) -> str:
    if spec.parallel.strategy == "zero3":
        return "other GPUs' weights that are used again soon, or fetched ahead"
    return "the block that computes and the one that is fetched from the host behind it"


def _pixels(spec: Spec) -> str:
    copies = " and ".join(f"{count(channels, 'channel')} in {dtype}" for dtype, channels in kept(spec.data).items())
    return f"the batch that was encoded stays through the step: of each pixel {copies}"


def _activations(job: Job, model: Model, budget: Budget) -> str:
    spec, stage = job.spec, model.stage
    saved = "every saved tensor of the forward pass, and what the backward pass makes"
    if spec.train.checkpointing is not False:
        saved = "one hidden state a checkpoint, and all of one block as it runs again"
        saved += AWAY[spec.offload.activations]
    if "num_attention_heads" in job.dims and attention_kernel(job) == "math":
        saved += ", with a score for every pair of tokens, as the GPU has no fused attention for this dtype"
    sequence = spec.parallel.sequence
    divided = f"; tokens are divided between {count(sequence, 'GPU')}" if sequence > 1 else ""
    if stage is not None:
        saved = f"{saved}; {count(stage.in_flight, 'pass')} in flight, with what is exchanged with other stages"
    then = int(budget.step.activations)
    worst = f" ({gib(then)} at the step's worst moment)" if then < int(budget.activations) * NEARLY else ""
    return f"{saved}, at their highest{worst}{divided}"


def _written(spec: Spec) -> str:
    """The strategy, FSDP 1 apart from FSDP 2, and a network wrapped whole apart from one whose blocks are."""
    parallel = spec.parallel
    if parallel.strategy != "fsdp":
        return parallel.strategy
    return "fsdp" + (" 1" if parallel.fsdp_version == 1 else "") + (" whole" if parallel.wrap == "whole" else "")


def _in(dtype: str | None) -> str:
    return f" in {dtype}" if dtype is not None else ""


def _said(sentence: str, spec: Spec) -> str:
    parallel, settings = spec.parallel, zero.configured(spec)
    return sentence.format(
        ranks=count(
            parallel.shards if parallel.strategy == "fsdp" else parallel.gpus // parallel.tensor // parallel.pipeline, "GPU"
        ),
        ranks_=parallel.gpus // parallel.tensor // parallel.pipeline,
        unit="all at once" if parallel.wrap == "whole" else "block by block",
        threshold=settings.param_persistence_threshold,
        bucket=settings.reduce_bucket_size,
    )
