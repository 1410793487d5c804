"""What the run holds in the memory of one node: what was moved off the GPUs, what loads, and what is gathered to be saved.

Not counted: the processes themselves and the page cache of files that are mapped, which the system takes back when it must.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from preflight.checkpoints import checkpoint
from preflight.job import Job
from preflight.memory import experts, fsdp, zero
from preflight.memory.budget import Budget, component_bytes
from preflight.memory.encoders import encoder_bytes
from preflight.memory.model import Model
from preflight.memory.optimizer import optimizer
from preflight.memory.quantization import share_on_host
from preflight.memory.rank import Rank, total
from preflight.memory.sharding import rank
from preflight.spec import Spec
from preflight.tape.dtypes import BYTES
from preflight.tape.quantized import Quantized

CHANNELS = 3
FLOAT32 = BYTES["fp32"]


class Part(NamedTuple):
    """Bytes on one node, and whether they are page-locked, so that the GPU can fetch them while it computes."""

    name: str
    nbytes: int
    pinned: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """What each phase of the run holds on the busiest node."""

    phases: Mapping[str, tuple[Part, ...]]

    @property
    def worst(self) -> str:
        """The phase that holds most, the first of equals."""
        return max(self.phases, key=self.total)

    def total(self, phase: str) -> int:
        """Bytes of all parts of `phase`."""
        return sum(part.nbytes for part in self.phases[phase])


def host(job: Job, model: Model, budget: Budget) -> Host:
    """Every phase's parts, those of all ranks on one node together."""
    spec = job.spec
    components = tuple(_each(_components(job), ranks_per_node(spec)))
    standing = (*components, *_each(_standing(job, model, budget), ranks_per_node(spec)))
    found = {"load": (*components, *_loading(job, model)), "step": standing}
    if spec.save is not None:
        found["save"] = (*standing, *_gathered(job, model))
    return Host(phases=found)


def ranks_per_node(spec: Spec) -> int:
    """Processes on the fullest node."""
    return -(-spec.parallel.gpus // spec.parallel.nodes)


def decoded_bytes(spec: Spec) -> int:
    """One batch as a DataLoader's worker hands it on: pixels in float32, as torchvision and decord scale them."""
    return spec.train.batch * spec.data.frames * spec.data.height * spec.data.width * CHANNELS * FLOAT32


def _each(parts: Iterator[Part], ranks: int) -> Iterator[Part]:
    return (part._replace(nbytes=int(part.nbytes) * ranks) for part in parts if part.nbytes)


def _standing(job: Job, model: Model, budget: Budget) -> Iterator[Part]:
    """What one rank holds from the first step to the last."""
    spec, share = job.spec, rank(job, model)
    away = spec.offload
    yield from _updated(job, model, share)
    if away.parameters:
        yield Part("weights", _weights(job, model), pinned=spec.parallel.strategy in ("fsdp", "zero3"))
    elif away.blocks:
        yield Part("swapped blocks", min(away.blocks * share.block, share.frozen) * experts.on_gpu(spec))
    if experts.on_host(spec):  # .to("cpu"), which is pageable
        yield Part("the idle expert", share.frozen if model.adapters else share.frozen + share.trained)
    if away.layers:  # SimpleTuner helpers/ramtorch/modules/linear.py: share_memory_().pin_memory()
        streamed = (p for p in model.parameters if isinstance(p, Quantized))
        whole = sum(p.numel * BYTES[p.dtype] * p.copies for p in streamed)
        yield Part("streamed layers", int(whole * share_on_host(away.layers)), pinned=True)
    # Tensor.to("cpu", non_blocking=True) makes its result page-locked (aten/src/ATen/native/TensorConversions.cpp: _to_copy);
    # save_on_cpu's default is pin_memory=False (torch/autograd/graph.py)
    yield Part("checkpoints", budget.away, pinned=away.activations is True)
    if spec.data.workers and spec.data.latents != "cached" and job.vae is not None:
        yield Part("data loading", spec.data.workers * spec.data.prefetch * decoded_bytes(spec))


def _updated(job: Job, model: Model, share: Rank) -> Iterator[Part]:
    """Optimizer states on the host, with what the update there reads and writes."""
    spec = job.spec
    if spec.parallel.strategy == "fsdp" and spec.offload.parameters:
        # CPUOffloadPolicy: gradients come with to("cpu", non_blocking=True), states are made where the shards are
        shards = Rank(trainable=fsdp.shards(job, model, trained=True), trained=0, frozen=0, block=0)
        states = optimizer(job, shards)
        yield Part("gradients", shards.trainable_bytes, pinned=True)
        yield Part("optimizer states", states.states + states.master)
        return
    if not spec.offload.optimizer:
        return
    states, each = optimizer(job, share), experts.trained(spec)
    yield Part("optimizer states", states.states * each)
    elements = sum(p.numel * p.copies for p in share.trainable) * each
    if spec.parallel.strategy.startswith("zero"):
        # stage_1_and_2.py: initialize_optimizer_states; stage3.py: the same name. Master and gradient in float32, both page-locked
        yield Part("master weights", states.master * each or elements * FLOAT32, pinned=True)
        yield Part("gradients", elements * FLOAT32, pinned=True)
        if spec.parallel.strategy != "zero3" and spec.train.accumulation > 1:  # accumulated_grads_in_cpu
            yield Part("accumulated gradients", zero.kept_bytes(job, model), pinned=True)
    else:  # torchao optim/cpu_offload.py: CPUOffloadOptimizer keeps a copy of each parameter and its gradient
        yield Part("master weights", (states.master or share.trainable_bytes) * each, pinned=True)
        yield Part("gradients", share.trainable_bytes * each, pinned=True)


def _weights(job: Job, model: Model) -> int:
    """Those of one rank that wait on the host."""
    strategy = job.spec.parallel.strategy
    if strategy == "fsdp":
        return total(fsdp.shards(job, model, trained=True)) + total(fsdp.shards(job, model, trained=False))
    return zero.partition_bytes(job, model) if strategy == "zero3" else model.frozen_bytes


def _components(job: Job) -> Iterator[Part]:
    """Text encoders and VAE that visit the GPU when they are needed."""
    data = job.spec.data
    if data.text == "offloaded":
        for component, dtype in job.encoders:
            yield Part(component.name, encoder_bytes(job, component, dtype))
    if data.latents == "offloaded" and job.vae is not None:
        yield Part(job.vae.name, component_bytes(job, job.vae))


def _loading(job: Job, model: Model) -> Iterator[Part]:
    """The network before it reaches the GPUs: one copy a process that loads it.

    DeepSpeed's processes build it in float32, whole or with zero.Init a layer at a time, as its own estimates have it
    (stage_1_and_2.py: estimate_zero2_model_states_mem_needs, and stage3.py: estimate_zero3_model_states_mem_needs).
    """
    spec = job.spec
    stored = "fp32" if spec.parallel.strategy.startswith("zero") else spec.precision.weights
    elements = model.parameter_count if model.stage is None else model.stage.parameters  # each process builds all stages
    whole = elements * BYTES[stored] * (experts.EXPERTS if spec.model.experts != "one" else 1)
    if spec.parallel.loading == "sharded":
        layer = max((p.numel for p in model.parameters), default=0) * BYTES[stored]
        yield Part("a layer as it loads", layer * ranks_per_node(spec))
    else:
        copies = ranks_per_node(spec) if spec.parallel.loading == "whole" and spec.parallel.strategy != "dp" else 1
        yield Part(f"{copies} copies of the weights as they load" if copies > 1 else "weights as they load", whole * copies)


def _gathered(job: Job, model: Model) -> Iterator[Part]:
    """A whole checkpoint on the first rank, where every rank has a part of the weights."""
    parallel = job.spec.parallel
    if parallel.strategy in ("fsdp", "zero3") and parallel.shards > 1:
        yield Part("the checkpoint", checkpoint(job, model).total)
