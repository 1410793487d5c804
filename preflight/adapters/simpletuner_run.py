"""SimpleTuner's run: the step, where things wait, how many GPUs share it, and what is sampled and saved.

helpers/training/trainer.py, helpers/training/validation.py and helpers/models/common.py of github.com/bghira/SimpleTuner.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.adapters import launcher
from preflight.adapters.draft import Draft
from preflight.adapters.simpletuner_data import BACKENDS, named
from preflight.adapters.simpletuner_network import family
from preflight.document import Document

#: optimizer_param.py: FSDP2_INCOMPATIBLE_PREFIXES and _NAMES, for which FSDP2_FALLBACK_OPTIMIZER is taken.
NOT_WITH_FSDP2 = ("optimi-", "bnb-", "soap")


def settle(run: Draft) -> None:
    """Puts train.*, data.latents, data.text, offload.*, parallel.*, sample.*, save.* and schedule.* into `run`."""
    _parallel(run)
    _optimizer(run)
    _checkpointing(run)
    _averaged(run)
    _placed(run)
    _offloaded(run)
    _sampled(run)
    _saved(run)


def _parallel(run: Draft) -> None:
    if run.document.launch is None:  # SimpleTuner starts itself, with accelerate
        group, source = int(run.get("parallel.sequence", 1)), "sections/advanced.py: num_processes is 1"
        if group > 1:
            source = f"num_processes is not given, and context_parallel_size needs {group}; pass --set num_processes=N"
        run.assume("parallel.gpus", group, source)
    if "_launcher.use_fsdp" in run.settled:
        run.put("_launcher.version", run.get("_fsdp_version", 2), like="_fsdp_version")
        if run.get("_launcher.auto_wrap_policy") is None:
            run.put("parallel.wrap", "blocks")  # configuration/cmd_args.py: transformer_based_wrap
        if run.get("_fsdp_version") == 1:  # trainer.py makes the plugin itself, which has it false
            run.put("_launcher.use_orig_params", False, like="_fsdp_version")
    if isinstance(run.document.data.get(launcher.DEEPSPEED), Mapping):
        run.settled["_launcher.use_deepspeed"] = True
    mixed = run.get("_mixed")
    run.put("_launcher.mixed_precision", mixed if mixed in ("bf16", "fp16") else "no", like="_mixed")
    launcher.settle(run)
    _shared(run)
    if run.get("parallel.sequence") == 1 and "parallel.sequence" in run.assumed:
        run.drop("parallel.sequence")


def _shared(run: Draft) -> None:
    """helpers/training/context_parallel.py: with FSDP torch's own ring, which accelerate sets up, else that of diffusers."""
    group = int(run.get("parallel.sequence", 1))
    if group == 1:
        return
    exchanges, sharded = run.get("_rotation") == "alltoall", run.get("parallel.strategy") == "fsdp"
    run.put("parallel.sequence_code", "torch" if sharded else "diffusers", like="parallel.sequence")
    if sharded or not exchanges:
        run.put("parallel.ring", group, like="_rotation")
    if not sharded and not exchanges:
        message = "allgather is diffusers' ring for any length, which has no backward pass: the first step stops."
        run.note("error", "ring-without-backward", message, at="_rotation", fix="context_parallel_comm_strategy: alltoall")


def _optimizer(run: Draft) -> None:
    name = str(run.get("train.optimizer.name"))
    wide = run.get("_base_dtype") == "fp32" and run.get("precision.quantization") != "none"
    if name == "adamw_bf16" and wide:
        run.put("train.optimizer.name", "optimi-adamw", like="train.optimizer.name")
        run.note("note", "optimizer-replaced", "with base_model_default_dtype fp32 adamw_bf16 is replaced by optimi-adamw.",
                 at="_base_dtype")  # fmt: skip
    second = run.get("parallel.strategy") == "fsdp" and run.get("_launcher.version") == 2
    if second and name.startswith(NOT_WITH_FSDP2):
        message = f"{name} does not work with FSDP2, so SimpleTuner takes adamw_schedulefree."
        run.note("warning", "optimizer-replaced", message, at="train.optimizer.name")
        run.put("train.optimizer.name", "adamw_schedulefree", like="train.optimizer.name")
    chosen = str(run.get("train.optimizer.name"))
    if chosen.startswith("adamw_schedulefree"):  # AdamWScheduleFreeKahan keeps one state more than the optimizer of that name
        run.put("train.optimizer.name", "adamw_schedulefree_kahan", like="train.optimizer.name")
    if name == "torch-sgd":
        run.put("train.optimizer.momentum", False, like="train.optimizer.name")  # optimizer_param.py: momentum 0.0
    if run.get("_optimizer_away"):
        run.put("offload.optimizer", True, like="_optimizer_away")
    # zero_grad(set_to_none=config.set_grads_to_none), which RamTorch turns on
    kept = not run.get("_none") and not run.get("_ramtorch")
    run.put("train.zero_grad", "before-backward" if kept else "after-step", like="_none")


def _checkpointing(run: Draft) -> None:
    """gradient_checkpointing_interval.py: whole blocks in units of `interval`, the first of each `stride`."""
    on, backend = bool(run.get("_checkpointing")), str(run.get("_backend"))
    like = "_checkpointing"
    if run.get("parallel.strategy") == "fsdp" and run.get("_fsdp_checkpointing"):
        run.put("train.checkpointing", True, like="_fsdp_checkpointing")
        return
    value: Any = on
    interval, stride = run.get("_interval", 1), run.get("_stride")
    if on and interval > 1 and family(run).interval:
        value, like = {"every": interval}, "_interval"
        if stride is not None:
            if stride < interval:
                message = f"gradient_checkpointing_segment_stride is {stride}; expected at least the interval, {interval}."
                run.note("error", "invalid-value", message, at="_stride")
                run.check()
            value["stride"] = stride
    elif interval > 1 and on:
        message = f"gradient_checkpointing_interval does nothing with {run.get('_family')}, every block of which is recomputed."
        run.note("note", "interval-ignored", message, at="_interval")
    partly = on and (backend.endswith("-ffn") or run.get("_attention_away"))
    if partly:
        why = "_backend" if backend.endswith("-ffn") else "_attention_away"
        message = (
            "keeping the attention's activations, on the GPU or the host, is not modelled; the step is counted without checkpoints."
        )
        run.note("warning", "partial-checkpointing", message, at=why)
        value, like = False, why
    run.put("train.checkpointing", value, like=like)
    if on and backend == "unsloth" and not partly:
        run.put("offload.activations", True, like="_backend")


def _averaged(run: Draft) -> None:
    """_place_ema_model: the average of what trains waits on the host unless it is told otherwise, in the weights' dtype."""
    here = run.get("_ema") and run.get("_ema_device") == "gpu" and not run.get("_ema_host")
    run.put("train.ema", bool(here), like="_ema")
    if run.get("_ema") and not here:
        run.note("note", "ema-on-host", "the average waits on the host, where ema_device puts it.", at="_ema")


def _placed(run: Draft) -> None:
    """init_unload_vae and init_unload_text_encoder: both are gone before the network comes, unless a cache is made on demand."""
    entries = _entries(run.document)
    demanded = any(entry.get("vae_cache_ondemand") or entry.get("vae_cache_disable") for entry in entries)
    here = run.get("_vae_loaded") or run.get("_vae_ondemand") or demanded
    run.put("data.latents", "online" if here else "cached", like="_vae_ondemand" if run.get("_vae_ondemand") else "_vae_loaded")
    text = run.get("_text_ondemand") or any(
        entry.get("text_cache_ondemand") or entry.get("text_cache_disable") for entry in entries
    )
    run.put("data.text", "online" if text else "cached", like="_text_ondemand")
    words = {
        str(run.get(f"_text_precision.{n}")) for n in (1, 2, 3, 4) if run.get(f"_text_precision.{n}", "no_change") != "no_change"
    }
    first = next((f"_text_precision.{n}" for n in (1, 2, 3, 4) if f"_text_precision.{n}" in run.origins), None)
    if len(words) == 1:
        run.put("precision.text_encoder_quantization", words.pop(), like=first)
    if run.get("_ramtorch") and run.get("_ramtorch_text"):
        run.put("offload.text_layers", True, like="_ramtorch_text")
    if not text:
        run.put("data.text_loading", "alone", like="_text_ondemand")  # init_unload_text_encoder comes before init_load_base_model
        message = (
            "captions and samples are encoded in this same run, before the network is loaded: the text encoders are counted as they"
            " load, and the passes that encode are not."
        )
        run.findings.append(run.document.finding("caching-not-counted", "note", message, key=named(run.document)))


def _entries(document: Document) -> list[Mapping[str, Any]]:
    backends = document.data.get(BACKENDS)
    return [entry for entry in backends if isinstance(entry, Mapping)] if isinstance(backends, list) else []


def _offloaded(run: Draft) -> None:
    blocks = run.get("offload.blocks")
    if run.get("_ramtorch"):
        if blocks:
            message = "ramtorch and musubi_blocks_to_swap exclude each other: SimpleTuner stops."
            run.note("error", "conflicting-keys", message, at="offload.blocks", fix="set musubi_blocks_to_swap to 0")
            run.check()
        _streamed(run)
    if run.get("_group"):
        if run.get("_ramtorch"):
            run.note(
                "error", "conflicting-keys", "ramtorch and enable_group_offload exclude each other: SimpleTuner stops.", at="_group"
            )
            run.check()
        path = "offload.layers" if run.get("_group_leaf") else "offload.parameters"
        run.put(path, True, like="_group")
        if run.get("_group_blocks", 1) > 2:
            message = "two blocks are counted on the GPU at a time, but group_offload_blocks_per_group keeps more of them there."
            run.note("warning", "larger-groups", message, at="_group_blocks")
    if not blocks and "offload.blocks" in run.assumed:
        run.drop("offload.blocks")


def _streamed(run: Draft) -> None:
    """common.py: _apply_ramtorch_layers, a share of the linear layers, those whose names match."""
    share = run.get("_ramtorch_share") / 100
    run.put("offload.layers", True if share == 1 else share, like="_ramtorch_share" if share < 1 else "_ramtorch")
    told = run.get("_ramtorch_targets")
    everything = ("*", "blocks.*", "transformer_blocks.*", "Linear")
    names = [name.strip() for name in str(told).split(",")] if told else []
    if names and not any(name in everything for name in names):
        message = "ramtorch_target_modules picks some layers alone; all of them are counted on the GPU, which is more."
        run.note("warning", "partly-streamed", message, at="_ramtorch_targets")
        run.put("offload.layers", False, like="_ramtorch_targets")


def _sampled(run: Draft) -> None:
    """Validation with the network as it trains, at each interval and, unless disable_benchmark, before the first step."""
    known = family(run)
    prompted = run.get("_prompt") not in (None, "", [], {}) or run.get("_library") not in (None, False, "")
    unprompted = not prompted and (known.silent or run.get("_no_unconditional"))
    if run.get("_validates_not") or unprompted or run.get("parallel.strategy") == "zero3":
        run.drop("sample")
        return
    if str(run.get("_method", "simpletuner-local")).replace("_", "-") == "external-script":
        run.drop("sample")
        return
    fluxed = run.get("_family") in ("flux", "chroma")
    guidance = "_guidance_real" if fluxed else "_guidance"
    run.put("sample.guidance", run.get(guidance) > 1, like=guidance)
    if not known.video:
        run.put("sample.frames", 1)
    if known.tiling:
        run.put("sample.tiling", True)
    if _never(run) and "sample.every" in run.origins:
        run.drop("sample.every")


def _never(run: Draft) -> bool:
    """Whether the interval is beyond the run, so that only the first and the last validation are left."""
    every, steps = run.get("sample.every"), run.get("schedule.steps")
    return every is not None and steps is not None and every > steps


def _saved(run: Draft) -> None:
    run.put("save.final", True)
    steps, epochs = run.get("schedule.steps"), run.get("schedule.epochs")
    said = run.document.data
    untold = not {"num_train_epochs", "--num_train_epochs", "NUM_EPOCHS", "NUM_TRAIN_EPOCHS"} & set(said)
    if steps and (epochs or untold):
        told = f"{run.origins['schedule.epochs']} is {epochs}" if epochs else "num_train_epochs is 1 where it is left out"
        message = f"{told}, and SimpleTuner stops when max_train_steps is given beside it; expected num_train_epochs 0."
        key = run.origins.get("schedule.epochs", run.origins["schedule.steps"])
        fix = "set num_train_epochs to 0"
        run.findings.append(run.document.finding("steps-and-epochs", "error", message, key=key, fix=fix))
    elif not steps and untold:
        run.assume("schedule.epochs", 1, "sections/training.py: num_train_epochs")


def inverse(run: Draft, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What the options say where the canonical value is made from several of them."""
    answer = dict(changes)
    if run.get("_lora_type") == "lycoris":  # another file's
        answer = {path: value for path, value in answer.items() if not path.startswith("train.lora.")}
    blocks = answer.pop("train.checkpointing", None)
    if isinstance(blocks, bool):
        answer["_checkpointing"] = blocks
    if answer.pop("offload.activations", None):
        answer["_checkpointing"], answer["_backend"] = True, "unsloth"
    if answer.pop("offload.layers", None) is True:
        answer["_ramtorch"] = True
    if "parallel.sequence" in answer:
        answer.pop("parallel.ring", None)
        answer["_rotation"] = "alltoall"
    if answer.pop("offload.optimizer", None):
        answer["_optimizer_away"] = True
    if "precision.quantized_on" in answer:
        answer["_quantized_on"] = answer.pop("precision.quantized_on")
    if "precision.quantization" in answer:
        answer["precision.quantization"] = str(answer["precision.quantization"]).removesuffix("-simpletuner")
    if "data.latents" in answer:
        answer["_vae_ondemand"] = answer.pop("data.latents") == "online"
    if "data.text" in answer:
        answer["_text_ondemand"] = answer.pop("data.text") == "online"
    bits = answer.pop("train.optimizer.bits", None)
    if bits == 8:
        answer["train.optimizer.name"] = "bnb-adamw8bit"
    return answer
