"""How DiffSynth-Studio's trainers run: what of the launch decides the precision, and where encoders and adapters are.

What holds is read in diffsynth/diffusion/training_module.py, runner.py and diffsynth/core/vram/layers.py of
github.com/modelscope/DiffSynth-Studio, commit fed7b18.
"""

from __future__ import annotations

import re
from typing import Any

from preflight.adapters import launcher
from preflight.adapters.block_layers import layers
from preflight.adapters.conversions import Conversion
from preflight.adapters.diffsynth_models import QUANTIZATION, Entry, Role, of
from preflight.adapters.draft import Draft

#: Wan's own layers that auto_detect_lora_target_modules finds: those of its blocks.
WAN_LAYERS = ("q", "k", "v", "o", "ffn.0", "ffn.2")
#: Inputs that stand in the sequence as tokens of their own, by the network; those of editing networks are counted as one picture.
REFERENCES = {"flux.2": ("edit_image",), "z-image": ("edit_image",), "wan": ("reference_image",), "ltx": ("in_context_videos",)}


def targets(inner: Conversion) -> Conversion:
    """`inner`, or an empty text, with which the trainer adapts every linear layer of the blocks. Reads to a list, then empty."""

    def read(value: Any) -> Any:
        return [] if value == "" else inner.read(value)

    def write(value: Any, raw: Any) -> Any:
        return inner.write(value, raw or "")

    return Conversion(name=inner.name, read=read, write=write, schema={"type": "string"})


#: A block by its number, as far as the last one in a name.
BLOCK = re.compile(r".*(?:blocks|attentions)\.\d+\.")


def adapted(run: Draft) -> None:
    """The layers that adapters are added to; what is listed block by block is counted in every block."""
    name, chosen = run.get("model.name"), run.get("train.lora.targets")
    if len(chosen) > 1:
        chosen = list(dict.fromkeys(BLOCK.sub("", target) for target in chosen))
        run.put("train.lora.targets", chosen, like="train.lora.targets")
    if not chosen:
        found = list(WAN_LAYERS) if name.startswith("wan") else layers(name)
        if not found:
            message = "which layers are adapted without --lora_target_modules is not known for this network; name them."
            run.note("error", "missing-key", message, at="train.lora.targets")
            run.check()
        run.put("train.lora.targets", found, like="train.lora.targets")
    elif len(chosen) == 1 and re.fullmatch(r"[\w.]+", chosen[0]):
        message = f"one name alone is a pattern of whole names, of which {chosen[0]} matches none; it is counted as a list."
        run.note("warning", "single-target", message, at="train.lora.targets", fix="name two modules, or .*\\.NAME")
    elif len(chosen) == 1:
        message = f"the pattern {chosen[0]} of modules' names is not modelled; expected names with commas between them."
        run.note("error", "not-modelled", message, at="train.lora.targets")
        run.check()
    if name.startswith("flux.1") and {"attn.to_q", "add_q_proj"} & set(run.get("train.lora.targets")):
        message = "query, key and value are one layer in the trainer, counted as three, whose adapters are half as large again."
        run.note("note", "fused-qkv", message, at="train.lora.targets")


def encoders(run: Draft) -> None:
    """Where the VAE and the encoders are: all that the launch names is on the GPU, but what waits on the disk."""
    entries: tuple[Entry, ...] = run.get("_entries")
    away, task = set(run.get("_away", ())), run.get("_task")
    like = "_ids" if "_ids" in run.settled else "_files"
    places: tuple[tuple[str, Role, str], ...] = (("data.latents", "vae", "VAE"), ("data.text", "text", "text encoder"))
    for path, role, what in places:
        named = of(entries, role)
        kept = [found for found in named if found.text not in away]
        run.put(path, "online" if kept else "cached", like="_away" if named and not kept else like)
        if kept and task == "sft:train":
            message = f"{kept[0].text} stays on the GPU, where --task sft:train has no use for it."
            run.note("warning", "idle-encoder", message, at=like, fix="name it in --offload_models, too")
        elif not kept and task != "sft:train":
            message = f"no {what} is loaded, so the trainer stops unless --task sft:data_process has encoded the data."
            run.note("warning", "no-encoder", message, at=like, fix="set --task to sft:train")
    if run.get("_entry").text in away:
        message = "the network is named in --offload_models, so it is read from the disk layer by layer and cannot be trained."
        run.note("error", "not-modelled", message, at="_away")
        run.check()


def precision(run: Draft) -> None:
    """bfloat16 throughout (from_pretrained(torch_dtype=torch.bfloat16)), less what is kept narrow."""
    for path in ("precision.weights", "precision.text_encoder", "precision.vae"):
        run.put(path, "bf16")
    entries, entry = run.get("_entries"), run.get("_entry")
    narrow, methods = set(run.get("_fp8", ())), dict(run.get("_quantized", ()))
    if entry.text in narrow and run.get("train.method") == "full":
        message = "weights in float8 cannot be trained; take the network out of --fp8_models."
        run.note("error", "quantized-training", message, at="_fp8")
        run.check()
    if entry.text in narrow:
        run.put("precision.quantization", "fp8-torchao", like="_fp8")  # AutoWrappedLinear: cast for each product, which saves it
    elif entry.text in methods:
        run.put("precision.quantization", QUANTIZATION[methods[entry.text]], like="_quantized")
    texts = [found.text for found in of(entries, "text")]
    if texts and set(texts) <= narrow:
        run.put("precision.text_encoder_quantization", "fp8-torchao", like="_fp8")
    elif texts and set(texts) <= set(methods):
        run.put("precision.text_encoder_quantization", QUANTIZATION[methods[texts[0]]], like="_quantized")
    for like, names in (("_fp8", narrow), ("_quantized", set(methods)), ("_away", set(run.get("_away", ())))):
        unknown = next((name for name in sorted(names) if name not in {found.text for found in entries}), None)
        if unknown is not None:
            message = f"{unknown} is not written as one of the models is, so it changes nothing."
            run.note("warning", "unmatched-model", message, at=like)


def launched(run: Draft, started: launcher.Launched) -> None:
    """What accelerate makes of the run: autocast, DeepSpeed's own copies, and how many passes make a step."""
    mixed = started.mixed_precision
    if mixed in ("bf16", "fp16") and not started.engine and not run.get("offload.layers"):
        run.put("precision.autocast", mixed, like="_launcher.mixed_precision")
        run.put("precision.attention", mixed, like="_launcher.mixed_precision")
    else:
        run.put("precision.autocast", None)
    if started.engine:
        run.put("precision.master", "fp32")  # zero/stage_1_and_2.py and stage3.py: float32 copies of what trains
    if mixed == "fp8":
        run.note("error", "not-modelled", "accelerate's fp8 is not modelled; expected no or bf16.", at="_launcher.mixed_precision")
        run.check()
    passes = started.accumulation
    if passes is not None and passes != run.get("train.accumulation"):
        if "train.accumulation" in run.origins:
            message = f"accelerate's own gradient_accumulation_steps, {passes}, goes before it."
            run.note("warning", "accumulation-ignored", message, at="train.accumulation")
        run.assumed.pop("train.accumulation", None)
        said = "_deepspeed.accumulation" in run.settled
        run.put("train.accumulation", passes, like="_deepspeed.accumulation" if said else "_launcher.accumulation")
    _deepspeed_checkpointing(run, started)


#: Networks whose blocks are called with plain arguments; the others' are named, and kept by the checkpoint's own function.
SENT = ("wan", "flux.1")


def checkpoints(run: Draft) -> None:
    """gradient_checkpoint_forward: save_on_cpu sees what a checkpoint saves, and that is its plain arguments alone.

    torch/utils/checkpoint.py: new_frame.save_inputs(*args), beside the function that runs again with **kwargs.
    """
    if not run.get("offload.activations"):
        return
    if run.get("model.name").startswith(SENT):
        run.put("offload.activations", "saved", like="offload.activations")
        return
    message = "this network's blocks are given their inputs by name, which save_on_cpu never sees, so all of them stay on the GPU."
    run.note("warning", "offload-ignored", message, at="offload.activations")
    run.put("offload.activations", False, like="offload.activations")


def _deepspeed_checkpointing(run: Draft, started: launcher.Launched) -> None:
    """initialize_deepspeed_gradient_checkpointing: with a section for it in DeepSpeed's file its own runs, else torch's."""
    group = run.document.data.get(launcher.DEEPSPEED)
    section = group.get("activation_checkpointing") if isinstance(group, dict) else None
    if not started.engine or not isinstance(section, dict) or not run.get("train.checkpointing"):
        return
    run.put("train.use_reentrant", True)
    moved = section.get("cpu_checkpointing") is True
    if run.get("offload.activations") and not moved:
        message = "DeepSpeed's own checkpointing runs in its place, and its cpu_checkpointing is off."
        run.note("warning", "offload-ignored", message, at="offload.activations")
    run.put("offload.activations", moved)
    run.assumed.pop("offload.activations", None)
    run.origins.pop("offload.activations", None)


def remarks(run: Draft) -> None:
    name, inputs = run.get("model.name"), run.get("_inputs", ())
    for family, words in REFERENCES.items():
        word = next((word for word in words if word in inputs), None)
        if name.startswith(family) and word is not None:
            message = f"the tokens of {word} stand in the sequence beside those of the target, and are not counted."
            run.note("warning", "reference-tokens", message, at="_inputs")
    if run.get("offload.layers") and run.get("parallel.gpus", 1) > 1:
        message = "with --enable_model_cpu_offload the model is not wrapped, so each GPU trains a model of its own."
        run.note("warning", "not-synchronised", message, at="offload.layers")
    if run.get("model.experts") == "both":
        message = "both experts are loaded, one of which trains; both are counted as training, which is a little more."
        run.note("note", "not-counted", message, at="model.experts")
