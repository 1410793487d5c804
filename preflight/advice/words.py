"""What an offer changes: in canonical keys, in one line for a person, and how much of the result it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import log
from typing import Any

from preflight.memory.quantization import scheme
from preflight.spec import Spec
from preflight.tape.dtypes import BYTES

SHARDED = {"zero1": "optimizer states", "zero2": "optimizer states and gradients"}


def changes(before: Spec, after: Spec) -> dict[str, Any]:
    """Canonical dotted keys that differ, with their new values."""
    was, now = dict(_leaves(before.to_mapping())), dict(_leaves(after.to_mapping()))
    return {key: value for key, value in now.items() if was.get(key) != value}


def changed(spec: Spec, to: Mapping[str, Any]) -> Spec:
    """`spec` with the canonical dotted keys of `to` set; the other way round than `changes`."""
    data = spec.to_mapping()
    for path, value in to.items():
        *above, last = path.split(".")
        place = data
        for step in above:
            place[step] = dict(place.get(step) or {})
            place = place[step]
        place[last] = value
    return Spec.from_mapping(data)


def _leaves(data: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and path not in ("model.dims", "train.checkpointing"):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def loss(before: Spec, after: Spec) -> float:
    """How much of what is learnt an offer gives up: the logarithm of the pixels, and half that of the rank, that are left out.

    Frozen weights of fewer bits are counted as the least of them: adapters learn around their rounding (Dettmers et al. 2023,
    arXiv 2305.14314, table 3).
    """
    pixels = [spec.data.frames * spec.data.height * spec.data.width for spec in (before, after)]
    ranks = [spec.train.lora.rank if spec.train.lora is not None else 1 for spec in (before, after)]
    bits = [_bits(spec) for spec in (before, after)]
    return max(0.0, log(pixels[0] / pixels[1])) + max(0.0, log(ranks[0] / ranks[1])) / 2 + max(0.0, log(bits[0] / bits[1])) / 4


def _bits(spec: Spec) -> float:
    found = scheme(spec.precision.quantization)
    return found.form.bits if found is not None else 8 * BYTES[spec.precision.weights]


def words(before: Spec, after: Spec) -> str:
    """The differences as a person says them."""
    return ", ".join(_words(before, after))


def _words(before: Spec, after: Spec) -> Iterator[str]:
    yield from _kept(before, after)
    yield from _batch(before, after)
    yield from _parallel(before, after)
    yield from _offload(before, after)
    was, now = before.train.lora, after.train.lora
    if was is not None and now is not None and was.rank != now.rank:
        yield f"LoRA rank {was.rank} → {now.rank}"
    if after.data.frames != before.data.frames:
        yield f"frames {before.data.frames} → {after.data.frames}"
    if (after.data.height, after.data.width) != (before.data.height, before.data.width):
        yield f"{before.data.height}×{before.data.width} → {after.data.height}×{after.data.width}"
    yield from _sample(before, after)


def _kept(before: Spec, after: Spec) -> Iterator[str]:
    was, now = before.precision, after.precision
    if now.quantized_on != was.quantized_on:
        yield "weights quantised on the host"
    if (now.weights, now.autocast) != (was.weights, was.autocast):
        yield "float16 instead of bfloat16"
    if now.quantization != was.quantization:
        yield f"frozen weights in {now.quantization}" if now.quantization != "none" else "frozen weights not quantised"
    for place, how in (("cached", "cached {}"), ("offloaded", "{} on the host")):
        names = (
            {"latents": "latents", "text": "text embeddings"} if place == "cached" else {"latents": "VAE", "text": "text encoder"}
        )
        moved = [names[key] for key in names if getattr(after.data, key) == place != getattr(before.data, key)]
        if moved:
            yield how.format(" and ".join(moved))
    if after.train.checkpointing != before.train.checkpointing:
        yield "gradient checkpointing"
    if after.train.optimizer.bits != before.train.optimizer.bits:
        yield f"{after.train.optimizer.bits}-bit optimizer states"


def _batch(before: Spec, after: Spec) -> Iterator[str]:
    was, now = before.train, after.train
    if now.batch != was.batch:
        yield f"batch {was.batch} → {now.batch}"
    if now.accumulation != was.accumulation:
        kept = " (effective batch kept)" if after.effective_batch == before.effective_batch else ""
        yield f"accumulation {was.accumulation} → {now.accumulation}{kept}"
    if after.effective_batch != before.effective_batch:
        yield f"effective batch {before.effective_batch} → {after.effective_batch}"


def _parallel(before: Spec, after: Spec) -> Iterator[str]:
    was, now = before.parallel, after.parallel
    if now.strategy != was.strategy:
        divided = SHARDED.get(now.strategy, "weights")
        yield f"{divided} sharded over {now.gpus} GPUs ({now.strategy})"
    if now.sequence != was.sequence:
        yield f"{now.sequence} GPUs share each sample"
    if now.pipeline != was.pipeline:
        yield f"{now.pipeline} pipeline stages"


def _offload(before: Spec, after: Spec) -> Iterator[str]:
    was, now = before.offload, after.offload
    if now.optimizer and not was.optimizer:
        yield "optimizer states on the host"
    if now.blocks != was.blocks:
        yield f"{now.blocks} blocks swapped to the host"
    if now.activations and not was.activations:
        yield "activations on the host"
    if now.layers and not was.layers:
        yield "layers on the host, one at a time on the GPU"
    if now.parameters and not was.parameters:
        yield "weights on the host"


def _sample(before: Spec, after: Spec) -> Iterator[str]:
    """What changes in the samples drawn during training, beyond what follows from the size of what is trained on."""
    was, now = before.sample, after.sample
    if was is None or now is None:
        return
    frames = now.frames or after.data.frames
    if now.frames != was.frames and frames != after.data.frames:
        yield f"samples of {frames} frame{'s' * (frames > 1)}"
    if now.tiling and not was.tiling:
        yield "samples decoded in tiles"
    if now.batch not in (was.batch, after.train.batch):
        yield f"samples drawn {now.batch} at a time"
