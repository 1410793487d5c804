"""CogVideo's sat/train_video.py: SAT's YAML, in one file or in the several that --base merges.

Network, text encoder and VAE are one module, which DeepSpeed casts and which stays on the GPU.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from preflight.adapters import flags, launcher
from preflight.adapters.conversions import RANKS, SIDE, STEPS, Conversion, RefusedError, choice, flag, text, whole
from preflight.adapters.draft import Draft
from preflight.adapters.reading import Reading
from preflight.adapters.run_values import count, place
from preflight.adapters.table import Field, Table
from preflight.document import Document
from preflight.finding import ConfigError
from preflight.launching.launch import Unresolved

NETWORK, DATA, DEEPSPEED = "model.network_config.params", "data.params", "deepspeed"
ZERO = f"{DEEPSPEED}.zero_optimization"
#: hidden_size, layers and frames of a patch -> the network of text, and that of a first frame.
NETWORKS = {
    (1920, 30, 1): ("cogvideox-2b", ""),
    (3072, 42, 1): ("cogvideox-5b", "cogvideox-5b-i2v"),
    (3072, 42, 2): ("cogvideox1.5-5b", "cogvideox1.5-5b-i2v"),
}
STAGES = {"0": 0, "1": 1, "2": 2, "3": 3}
OPTIMIZERS = {"sat.ops.FusedEmaAdam": "fusedemaadam", "sat.ops.fused_ema_adam.FusedEmaAdam": "fusedemaadam"}


def _patch() -> Conversion:
    """`patch_size`: 2, or [2, 2, 2] with the frames first."""

    def read(value: Any) -> int:
        if value == 2 and not isinstance(value, bool):
            return 1
        if isinstance(value, list) and len(value) == 3 and value[0] in (1, 2) and value[1:] == [2, 2]:
            return int(value[0])
        raise RefusedError("2 or [2, 2, 2], as the networks have it")

    schema = {"anyOf": [{"const": 2}, {"type": "array", "items": {"type": "integer"}}]}
    return Conversion(name="patch size", read=read, write=lambda value, _: [2, 2, 2] if value == 2 else 2, schema=schema)


def _size() -> Conversion:
    """`video_size`: [height, width]."""
    side, expected = whole(1, SIDE), "[height, width], such as [480, 720]"

    def read(value: Any) -> tuple[int, int]:
        if not isinstance(value, list) or len(value) != 2:
            raise RefusedError(expected)
        height, width = (side.read(part) for part in value)
        return height, width

    schema = {"type": "array", "items": {"type": ["integer", "string"]}, "minItems": 2, "maxItems": 2}
    return Conversion(name="height width", read=read, write=lambda value, _: list(value), schema=schema)


def _all() -> Conversion:
    """`not_trainable_prefixes`: whether it freezes all."""

    def read(value: Any) -> bool:
        if not isinstance(value, list):
            raise RefusedError("a list such as ['all']")
        return "all" in value

    return Conversion(name="prefixes", read=read, write=lambda value, _: ["all"] if value else [], schema={"type": "array"})


SAT = "sat/diffusion_video.py"
FIELDS = (
    Field(path="_hidden", keys=(f"{NETWORK}.hidden_size",), convert=whole(1, SIDE)),
    Field(path="_layers", keys=(f"{NETWORK}.num_layers",), convert=whole(1, SIDE)),
    Field(path="_patch", keys=(f"{NETWORK}.patch_size",), convert=_patch(), default=1, source="sat/configs/cogvideox_5b.yaml"),
    Field(path="_channels", keys=(f"{NETWORK}.in_channels",), convert=whole(1, SIDE), default=16,
          source="sat/configs/cogvideox_5b.yaml"),
    Field(path="_checkpointing", keys=(f"{NETWORK}.transformer_args.checkpoint_activations",), convert=flag(), default=False,
          source="SwissArmyTransformer: BaseTransformer"),
    Field(path="_engine_checkpointing", keys=("args.checkpoint_activations",), convert=flag(), default=False,
          source="SwissArmyTransformer: arguments.py"),
    Field(path="_frozen", keys=("model.not_trainable_prefixes",), convert=_all(), default=False,
          source=f"{SAT}: first_stage_model, conditioner"),
    Field(path="_lora_train", keys=("model.lora_train",), convert=flag(), default=False, source=SAT),
    Field(path="train.lora.rank", keys=(f"{NETWORK}.modules.lora_config.params.r",), convert=whole(1, SIDE)),
    Field(path="train.batch", keys=(f"{DEEPSPEED}.train_micro_batch_size_per_gpu",), convert=whole(), precedence=1),
    Field(path="train.batch", keys=("args.batch_size",), convert=whole()),
    Field(path="train.accumulation", keys=(f"{DEEPSPEED}.gradient_accumulation_steps",), convert=whole(1, STEPS), default=1,
          source="DeepSpeed: runtime/config.py"),
    Field(path="_stage", keys=(f"{ZERO}.stage",), convert=choice("a ZeRO stage", STAGES), default=0,
          source="DeepSpeed: runtime/zero/config.py"),
    Field(path="offload.optimizer", keys=(f"{ZERO}.cpu_offload",), convert=flag(), default=False,
          source="DeepSpeed: runtime/zero/config.py"),
    *(Field(path=f"_zero.{name}", keys=(f"{ZERO}.{name}",), convert=flag()) for name in
      ("contiguous_gradients", "reduce_scatter", "overlap_comm")),
    Field(path="_zero.untested", keys=(f"{DEEPSPEED}.zero_allow_untested_optimizer",), convert=flag()),
    Field(path="_zero.reduce_bucket_size", keys=(f"{ZERO}.reduce_bucket_size",), convert=whole(0, 10**12)),
    Field(path="_bf16", keys=(f"{DEEPSPEED}.bf16.enabled",), convert=flag(), default=False, source="DeepSpeed"),
    Field(path="_fp16", keys=(f"{DEEPSPEED}.fp16.enabled",), convert=flag(), default=False, source="DeepSpeed"),
    Field(path="train.optimizer.name", keys=(f"{DEEPSPEED}.optimizer.type",), convert=text("an optimizer")),
    Field(path=("data.height", "data.width"), keys=(f"{DATA}.video_size",), convert=_size()),
    Field(path="data.frames", keys=(f"{DATA}.max_num_frames",), convert=whole(1, SIDE)),
    Field(path="_parallel", keys=("args.model_parallel_size",), convert=whole(1, RANKS), default=1, source="sat/arguments.py"),
    Field(path="sample.every", keys=("args.eval_interval",), convert=count()),
    Field(path="_latents_only", keys=("args.only_log_video_latents",), convert=flag(), default=False, source="sat/arguments.py"),
    Field(path="sample.steps", keys=("model.sampler_config.params.num_steps",), convert=whole(1, SIDE)),
    Field(path="save.every", keys=("args.save_interval",), convert=count()),
    Field(path="schedule.steps", keys=("args.train_iters",), convert=count(), default=10_000, source="sat/arguments.py"),
    Field(path="data.workers", keys=("args.num_workers",), convert=count(0, RANKS)),
    Field(path="paths.train", keys=("args.train_data",), convert=place()),
    Field(path="paths.validation", keys=("args.valid_data",), convert=place()),
    Field(path="paths.output", keys=("args.save",), convert=place()),
    Field(path="paths.model", keys=("args.load",), convert=place(local=True)),
    *launcher.FIELDS,
)  # fmt: skip

PARTS = ("pos_embed", "patch_embed", "adaln_layer", "final_layer", "attention", "mlp")
NO_EFFECT = (
    "args.experiment_name", "args.mode", "args.no_load_rng", "args.eval_iters", "args.eval_batch_size", "args.log_interval",
    "args.split", "args.force_train", "args.wandb", "args.seed", "args.lr*", "args.distributed_backend", "args.hidden_*",
    "data.target", f"{DATA}.fps", f"{DATA}.skip_frms_num", "model.scale_factor", "model.disable_first_stage_autocast",
    "model.latent_input", "model.log_keys", "model.noised_image_*", "model.en_and_decode_n_samples_a_time", "model.input_key",
    "model.denoiser_config", "model.conditioner_config", "model.first_stage_config", "model.loss_fn_config",
    "model.sampler_config.target", "model.sampler_config.params.*", "model.network_config.target",
    *(f"{NETWORK}.modules.{name}_config" for name in PARTS),
    f"{NETWORK}.modules.lora_config.target", f"{NETWORK}.transformer_args.*", f"{NETWORK}.*_rate", f"{NETWORK}.latent_*",
    f"{NETWORK}.time_*", f"{NETWORK}.elementwise_affine", f"{NETWORK}.num_*", f"{NETWORK}.out_channels", f"{NETWORK}.adm_*",
    f"{NETWORK}.ofs_*", f"{NETWORK}.text_*", f"{DEEPSPEED}.steps_per_print", f"{DEEPSPEED}.gradient_clipping",
    f"{DEEPSPEED}.activation_checkpointing", f"{DEEPSPEED}.wall_clock_breakdown",
    f"{DEEPSPEED}.optimizer.params", f"{DEEPSPEED}.loss_scale*", f"{DEEPSPEED}.hysteresis", f"{DEEPSPEED}.min_loss_scale",
    f"{DEEPSPEED}.bf16.*", f"{DEEPSPEED}.fp16.*", f"{ZERO}.allgather_bucket_size", f"{ZERO}.load_from_fp32_weights",
    f"{ZERO}.allgather_partitions", "base", "seed", "local_rank",
)  # fmt: skip


_flags = flags.flag_table(unread="{key} is not a key that CogVideo's train_video.py reads", fields=FIELDS, no_effect=NO_EFFECT)


def _locate(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Without the file of --base that a key stands in."""
    return _flags.locate(parts[1:] if parts and re.fullmatch(r"base\d+", parts[0]) else parts)


TABLE: Table = replace(_flags, locate=_locate, null_is_unset=True)


def read(document: Document) -> Reading:
    document = _merged(document)
    _whole(document)
    run = flags.draft(document, TABLE)
    _required(run)
    _model(run)
    _method(run)
    _parallel(run)
    _precision(run)
    _phases(run)
    return run.reading(_inverse)


def _inverse(changes: dict[str, Any]) -> dict[str, Any]:
    if "train.checkpointing" in changes:
        changes |= dict.fromkeys(("_checkpointing", "_engine_checkpointing"), bool(changes["train.checkpointing"]))
    return changes


def _merged(document: Document) -> Document:
    """`document` with the files of --base, under base0, base1 and so on. Raises ConfigError for one that is not there."""
    base = document.data.get("--base") if document.launch is not None else None
    paths = base if isinstance(base, list) else [base] if isinstance(base, str) else []
    for number, path in enumerate(paths):
        before = document
        document = flags.including(document, f"base{number}", path)
        if document is before:
            unknown = isinstance(path, Unresolved)
            why = f"is {path}, and {path.why}" if unknown else f"names {path}, which is not there"
            message = f"--base {why}; the run's whole config stands in it, so nothing can be judged."
            raise ConfigError(document.finding("file-not-read", "error", message, key="--base"))
    return document


def _half(document: Document, name: str) -> Mapping[str, Any]:
    """The block `name`, of whichever file has it."""
    blocks = [document.data, *(value for key, value in document.data.items() if re.fullmatch(r"base\d+", key))]
    return next((block[name] for block in blocks if isinstance(block, Mapping) and isinstance(block.get(name), Mapping)), {})


def _whole(document: Document) -> None:
    network = "network_config" in _half(document, "model")
    training = bool(_half(document, "deepspeed")) or bool(_half(document, "data"))
    if network and training:
        return
    if network:
        message = (
            "this is the network's half of SAT's config, without args, data and deepspeed; expected a file with both halves, or the"
            " script that starts train_video.py with both in --base."
        )
        raise ConfigError(document.finding("not-a-training-config", "error", message, key="model"))
    message = (
        "this is the training's half of SAT's config, without the model; expected a file with both halves, or the script that"
        " starts train_video.py with both in --base."
    )
    raise ConfigError(document.finding("not-a-training-config", "error", message, key="args"))


def _required(run: Draft) -> None:
    for path, key in (("train.batch", f"{DEEPSPEED}.train_micro_batch_size_per_gpu"), ("data.height", f"{DATA}.video_size"),
                      ("data.frames", f"{DATA}.max_num_frames"), ("_hidden", f"{NETWORK}.hidden_size"),
                      ("_layers", f"{NETWORK}.num_layers"), ("train.optimizer.name", f"{DEEPSPEED}.optimizer.type")):  # fmt: skip
        if path not in run.settled:
            run.findings.append(
                run.document.finding("missing-key", "error", f"{key} is missing, and SAT has no default for it.", key=key)
            )
    run.check()


def _model(run: Draft) -> None:
    sizes = (run.get("_hidden"), run.get("_layers"), run.get("_patch"))
    names = NETWORKS.get(sizes, ("", ""))
    name = names[run.get("_channels") == 32]
    if not name:
        message = f"{run.origins['_hidden']} {sizes[0]} with {sizes[1]} layers is no CogVideoX that is modelled."
        raise ConfigError(run.document.finding("not-modelled", "error", message, key=run.origins["_hidden"]))
    run.put("model.name", name, like="_hidden")
    if run.get("_parallel") > 1:
        message = f"{run.origins['_parallel']} {run.get('_parallel')} divides the network between GPUs, which is not modelled."
        raise ConfigError(run.document.finding("not-modelled", "error", message, key=run.origins["_parallel"]))


def _method(run: Draft) -> None:
    """What trains (disable_untrainable_params): all but the encoders, unless `all` is frozen, which spares the adapters."""
    adapters, frozen = "train.lora.rank" in run.settled, run.get("_frozen")
    if run.get("_lora_train"):
        message = "lora_train keeps all weights in the optimizer with a learning rate of 0, which is not modelled."
        run.note("error", "not-modelled", message, at="_lora_train", fix="not_trainable_prefixes: ['all']")
    elif frozen and not adapters:
        message = "model.not_trainable_prefixes freezes all, and there is no lora_config: nothing is left to train."
        run.note("error", "nothing-trains", message, at="_frozen")
    elif adapters and not frozen:
        message = (
            "lora_config adds adapters, but without not_trainable_prefixes: ['all'] the whole network trains as well, which is what"
            " is counted."
        )
        run.note("warning", "all-trains", message, at="train.lora.rank", fix="not_trainable_prefixes: ['all']")
    run.check()
    run.put("train.method", "lora" if frozen else "full", like="_frozen")
    if frozen:
        run.put("train.lora.targets", ["to_q", "to_k", "to_v", "to_out.0"])  # LoraMixin: query_key_value in three parts, and dense
    else:
        run.drop("train.lora")
    name = str(run.get("train.optimizer.name"))
    run.put("train.optimizer.name", OPTIMIZERS.get(name, name.rsplit(".", 1)[-1].lower()), like="train.optimizer.name")
    both = {run.get("_checkpointing"), run.get("_engine_checkpointing")}
    run.put("train.checkpointing", run.get("_checkpointing"), like="_checkpointing")
    run.put("train.use_reentrant", True)  # deepspeed.checkpointing is an autograd.Function
    if len(both) == 2:
        message = "checkpoint_activations is on in only one of args and transformer_args; the network's own counts."
        run.note("warning", "checkpointing-differs", message, at="_checkpointing")


def _parallel(run: Draft) -> None:
    if run.document.launch is not None:
        run.put("parallel.strategy", "none")
        launcher.settle(run, distributed=False)
    run.assume("parallel.gpus", 1, "torchrun --nproc_per_node decides, which no config says; pass --set hardware.gpus=N")
    stage = run.get("_stage")
    run.put("parallel.strategy", f"zero{stage}" if stage else "ddp" if run.get("parallel.gpus") > 1 else "none", like="_stage")
    for path in [path for path in run.settled if path.startswith("_zero.")]:
        run.put(f"parallel.{path.removeprefix('_')}", run.get(path), like=path)


def _precision(run: Draft) -> None:
    half = "bf16" if run.get("_bf16") else "fp16" if run.get("_fp16") else None
    like = "_bf16" if half == "bf16" else "_fp16"
    run.put("precision.weights", half or "fp32", like=like)
    run.put("precision.master", "fp32" if half else None, like=like)
    run.put("precision.autocast", None)
    run.put("precision.vae", half or "fp32", like=like)
    run.put("precision.text_encoder", half or "fp32", like=like)
    if run.get("train.method") == "lora":
        run.put("train.lora.dtype", half or "fp32", like=like)
    run.put("data.latents", "online")
    run.put("data.text", "online")


def _phases(run: Draft) -> None:
    """The evaluation samples; with only_log_video_latents the VAE decodes nothing, and the rest is less than a step."""
    if run.get("_latents_only"):
        run.drop("sample")
