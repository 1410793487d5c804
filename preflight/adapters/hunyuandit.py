"""HunyuanDiT: a launch script of hydit/train_deepspeed.py, or a YAML whose keys are its flags, with dashes or underscores.

What holds without a flag is hydit/config.py of github.com/Tencent/HunyuanDiT; what the flags do together is read in
hydit/train_deepspeed.py, hydit/ds_config.py and hydit/modules/models.py there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.adapters import flags, launcher
from preflight.adapters.conversions import COUNT, RANKS, SIDE, STEPS, choice, flag, flag_text, real, size, whole, words
from preflight.adapters.draft import Draft, draft
from preflight.adapters.reading import Adapter, Reading
from preflight.adapters.run_values import count, place
from preflight.adapters.table import HARDWARE, Field, Table
from preflight.document import Document

CONFIG = "hydit/config.py"
#: The trainer's attention modules (hydit/modules/attn_layers.py) in the names of the diffusers network that is modelled.
MODULES = {
    "Wqkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "q_proj": ("attn2.to_q",),
    "kv_proj": ("attn2.to_k", "attn2.to_v"),
    "out_proj": ("to_out.0",),
}
MODELS = {"DiT-g/2": "g2", "DiT-XL/2": "xl2"}
STAGES = {"1": "zero1", "2": "zero2", "3": "zero3"}
PARTS = {"all": "full", "lora": "lora", "ipadapter": "ipadapter"}
#: What hydit/ds_config.py writes into zero_optimization beside the stage.
ZERO = {
    "zero2": {"reduce_scatter": False, "reduce_bucket_size": 1_000_000_000},
    "zero3": {
        "contiguous_gradients": True,
        "reduce_scatter": True,
        "overlap_comm": True,
        "reduce_bucket_size": 1_200_000_000,
        "sub_group_size": 1_000_000_000,
        "prefetch_bucket_size": 500_000_000,
        "param_persistence_threshold": 9_000_000_000,
        "max_live_parameters": 600_000_000,
    },
}
LAUNCHER = ("num_gpus", "world_size", "gpus", "nproc_per_node", "hardware.gpus")

#: The flags that are dimensions of the network: their names in it, and their defaults.
DIMS = {
    "_text_len": ("text_len", 77),
    "_text_len_t5": ("text_len_t5", 256),
    "_text_dim": ("cross_attention_dim", 1024),
    "_text_dim_t5": ("cross_attention_dim_t5", 2048),
}

number, steps, side = flag_text(whole()), flag_text(whole(1, STEPS)), flag_text(whole(1, SIDE))
FIELDS = (
    Field(path="_model", keys=("model",), convert=choice("a model", MODELS, exact=True), default="g2", source=CONFIG),
    Field(path="_style", keys=("use_style_cond",), convert=flag(), default=False, source=CONFIG),
    Field(path="_size_cond", keys=("size_cond",), convert=flag_text(size("hw", square=True))),
    Field(path="train.method", keys=("training_parts",), convert=choice("parts to train", PARTS, exact=True), default="full",
          source=f"{CONFIG}: --training-parts all"),
    Field(path="train.lora.rank", keys=("rank",), convert=side, default=64, source=CONFIG),
    Field(path="train.lora.targets", keys=("target_modules",), convert=words("module names", MODULES),
          default=[name for ours in MODULES.values() for name in ours], source=f"{CONFIG}: --target-modules"),
    Field(path="train.batch", keys=("batch_size",), convert=number, default=1, source=CONFIG),
    Field(path="train.accumulation", keys=("grad_accu_steps",), convert=number, default=1, source=CONFIG),
    Field(path="_checkpointing", keys=("gradient_checkpointing",), convert=flag(), default=False, source=CONFIG),
    Field(path="_gc_rate", keys=("gc_rate",), convert=flag_text(real(0, 1)), default=1.0, source=CONFIG),
    Field(path="train.ema", keys=("use_ema",), convert=flag(), default=False, source=CONFIG),
    Field(path=("data.width", "data.height"), keys=("image_size",), convert=flag_text(size("hw", square=True)),
          default=(1024, 1024), source=f"{CONFIG}: --image-size"),
    Field(path="_text_len", keys=("text_len",), convert=side, default=77, source=CONFIG),
    Field(path="_text_len_t5", keys=("text_len_t5",), convert=side, default=256, source=CONFIG),
    Field(path="_text_dim", keys=("text_states_dim",), convert=side),
    Field(path="_text_dim_t5", keys=("text_states_dim_t5",), convert=side),
    Field(path="_fp16", keys=("use_fp16",), convert=flag(), default=True, source=CONFIG),
    Field(path="_fp16", keys=("no_fp16",), convert=flag(False, True)),
    Field(path="_extra_fp16", keys=("extra_fp16",), convert=flag(), default=False, source=CONFIG),
    Field(path="parallel.strategy", keys=("use_zero_stage",), convert=choice("a ZeRO stage", STAGES), default="zero1",
          source=f"{CONFIG}: --use-zero-stage 1"),
    Field(path="_zero_init", keys=("zero_stage",), convert=flag_text(whole(0, 3)), default=1, source=CONFIG),
    Field(path="offload.optimizer", keys=("cpu_offloading",), convert=flag(), default=False, source=CONFIG),
    Field(path="parallel.gpus", keys=LAUNCHER, convert=flag_text(whole(1, RANKS))),
    Field(path="_flash", keys=("use_flash_attn",), convert=flag(), default=False, source=CONFIG),
    Field(path="_flash", keys=("no_flash_attn",), convert=flag(False, True)),
    Field(path="_infer_mode", keys=("infer_mode",), convert=choice("a mode", {"fa": "fa", "torch": "torch", "trt": "trt"}),
          default="fa", source=CONFIG),
    Field(path="_multireso", keys=("multireso",), convert=flag(), default=False, source=CONFIG),
    Field(path="save.every", keys=("ckpt_every",), convert=steps, default=100_000, source=CONFIG),
    Field(path="save.latest_every", keys=("ckpt_latest_every",), convert=steps, default=10_000, source=CONFIG),
    Field(path="save.every_epochs", keys=("ckpt_every_n_epoch",), convert=flag_text(count())),
    Field(path="save.optimizer", keys=("save_optimizer_state",), convert=flag(), default=False, source=CONFIG),
    Field(path="_samples", keys=("sample_images", "sample", "samples", "sample_at_checkpoint", "sample_images_multi_gpu"),
          convert=flag(), default=False, source="the trainer does not sample"),
    Field(path="sample.steps", keys=("infer_steps",), convert=side),
    Field(path="schedule.samples", keys=("sample_limit",), convert=flag_text(count())),
    Field(path="schedule.epochs", keys=("epochs",), convert=flag_text(count()), default=100, source=CONFIG),
    Field(path="schedule.steps", keys=("max_training_steps",), convert=flag_text(count()), default=10_000_000, source=CONFIG),
    Field(path="schedule.warmup", keys=("warmup_num_steps",), convert=flag_text(count(0))),
    Field(path="data.workers", keys=("num_workers",), convert=flag_text(count(0, COUNT))),
    Field(path="paths.train", keys=("index_file",), convert=place()),
    Field(path="paths.resume", keys=("resume_module_root",), convert=place()),
    Field(path="paths.output", keys=("results_dir",), convert=place()),
    *HARDWARE,
)  # fmt: skip

#: The other flags of hydit/config.py, the two of the fork that samples while it trains, and DeepSpeed's own.
NO_EFFECT = (
    "task_flag", "seed", "qk_norm", "norm", "lora_ckpt", "output_merge_path", "control_type", "control_weight",
    "condition_image_path", "is_ipa", "resume_ipa", "resume_ipa_root", "ref_image_path", "i_scale", "learn_sigma",
    "no_learn_sigma", "predict_type", "noise_schedule", "beta_start", "beta_end", "sigma_small", "mse_loss_weight_type",
    "model_var_type", "noise_offset", "prompt", "model_root", "dit_weight", "controlnet_weight", "load_key", "target_ratios",
    "cfg_scale", "negative", "onnx_workdir", "sampler", "enhance", "no_enhance", "load_4bit", "lang", "lr",
    "gc_interval", "log_every", "global_seed", "warmup_min_lr", "weight_decay",
    "rope_img", "rope_real", "uncond_p", "uncond_p_t5", "uncond_p_img",
    "resume", "resume_ema_root", "no_strict", "random_flip", "reset_loader", "reso_step",
    "random_shrink_size_cond", "merge_src_cond", "ema_dtype", "ema_decay", "ema_warmup", "ema_warmup_power", "ema_reset_decay",
    "deepspeed", "deepspeed_config", "local_rank", "deepspeed_optimizer", "remote_device", "server_name", "server_port",
    "gradio_share", "model_path", "output_img_path", "image_path", "include", "hostfile", "master_port",
)  # fmt: skip

#: Flags that other trainers do not have; two of them make a config HunyuanDiT's.
TELLING = frozenset({
    "image_size", "training_parts", "use_zero_stage", "gc_rate", "grad_accu_steps", "text_states_dim", "text_states_dim_t5",
    "text_len_t5", "extra_fp16", "ckpt_latest_every", "ckpt_every_n_epoch", "resume_module_root", "index_file", "cpu_offloading",
    "uncond_p_t5", "use_style_cond", "size_cond", "rope_img", "no_fp16", "qk_norm", "predict_type", "no_flash_attn", "task_flag",
})  # fmt: skip


def _locate(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.lstrip("-").replace("-", "_") for part in parts)


def _prefer(key: str, document: Document) -> str:
    keys = [str(name).lstrip("-") for name in document.data]
    if "." in key or (not any("-" in name for name in keys) and any("_" in name for name in keys)):
        return key
    prefix = "--" if any(str(name).startswith("--") for name in document.data) else ""
    return prefix + key.replace("_", "-")


TABLE = Table(
    unread="{key} is not a flag of HunyuanDiT's trainer, so it changes nothing",
    fields=FIELDS,
    no_effect=NO_EFFECT,
    sections=frozenset({"hardware"}),
    locate=_locate,
    prefer=_prefer,
    null_is_unset=False,
)
#: The trainer's own command line, started by deepspeed, torchrun or python.
FLAGS = flags.flag_table(
    unread="{key} is not a flag of HunyuanDiT's trainer, whose parser stops at it",
    fields=(*(entry for entry in FIELDS if entry.keys != LAUNCHER), *launcher.FIELDS),
    no_effect=NO_EFFECT,
    dashes=True,
)
#: IndexKits' data files (dataset/yamls), which the trainer's data set is built from.
INDEX = Table(
    unread="{key} is not read from a data index",
    fields=(
        Field(path=("data.width", "data.height"), keys=("base_size",), convert=size("hw", square=True), default=(1024, 1024),
              source=f"{CONFIG}: --image-size"),
        *(entry for entry in FIELDS if entry.keys != ("image_size",)),
    ),
    no_effect=("src", "source", "reso_step", "target_ratios", "min_size", "md5*", "filter*", "repeater*", "remove_md5_dup",
               "reso_group*"),
    sections=TABLE.sections,
    locate=_locate,
    null_is_unset=False,
)  # fmt: skip


def matches(document: Document) -> bool:
    """The trainer itself, a model called DiT-…, two of the trainer's own flags, or an IndexKits data file."""
    if document.launch is not None:
        return flags.runs(document, "train_deepspeed.py", "hydit.train_deepspeed")
    names = {_locate((str(key),))[0] for key in document.data}
    model = document.data.get("model", document.data.get("--model"))
    return (isinstance(model, str) and model.startswith("DiT-")) or len(names & TELLING) > 1 or _is_index(document)


def _is_index(document: Document) -> bool:
    return "base_size" in document.data and bool({"src", "source"} & set(document.data))


def read(document: Document) -> Reading:
    """Raises ConfigError for values that cannot be understood."""
    index = _is_index(document)
    if document.launch is not None:
        run = flags.draft(document, FLAGS)
        launcher.settle(run)
    else:
        run = draft(document, INDEX if index else TABLE)
    if index:
        _is_only_data(run)
    _model(run)
    _method(run)
    _precision(run)
    _text(run)
    run.put("data.frames", 1)
    # Both encoders and the VAE are moved to the GPU before the first step and stay there: there is no flag for it.
    run.put("data.latents", "online")
    run.put("data.text", "online")
    _parallel(run)
    _phases(run)
    _attention(run)
    _remarks(run)
    return run.reading(_inverse)


def _is_only_data(run: Draft) -> None:
    message = "this is the trainer's data index, not its training settings; all but base_size is the trainer's default."
    run.findings.append(run.document.finding("data-index", "warning", message, key="base_size"))
    run.drop("parallel.strategy")
    run.assume("parallel.strategy", "zero2", "the launch scripts hydit/train.sh and lora/train_lora.sh")


def _model(run: Draft) -> None:
    old = run.get("_style") or run.get("_size_cond") is not None
    run.put("model.name", f"hunyuandit-v{'1.1' if old else '1.2'}-{run.get('_model')}", like="_model")
    for path, (dim, usual) in DIMS.items():
        if run.get(path, usual) != usual:
            run.put(f"model.dims.{dim}", run.get(path), like=path)
    for path in ("_text_dim", "_text_dim_t5"):
        if f"model.dims.{DIMS[path][0]}" in run.settled:
            message = "the network is counted with this width, but the encoder it belongs to may be larger than the one counted."
            run.note("warning", "other-text-encoder", message, at=path)


def _method(run: Draft) -> None:
    method = run.get("train.method")
    if method == "ipadapter":
        run.note("error", "invalid-value", "training-parts ipadapter is not modelled; expected all or lora.", at="train.method")
        run.check()
    run.put("train.optimizer.name", "adamw")  # hydit/ds_config.py
    run.put("train.optimizer.bits", 32)
    rate = run.get("_gc_rate")
    on = run.get("_checkpointing") and rate > 0
    like = "_checkpointing" if rate == 1 or not on else "_gc_rate"
    run.put("train.checkpointing", on if rate == 1 or not on else {"fraction": rate}, like=like)
    if method == "full":
        run.drop("train.lora")
        return
    run.put("train.lora.alpha", run.get("train.lora.rank"))  # LoraConfig(lora_alpha=args.rank)
    run.put("train.ema", False)
    if "train.ema" in run.origins:
        run.note("note", "ema-off", "training-parts lora turns the moving average off whatever is set here.", at="train.ema")
    if "attn1.to_q" in run.get("train.lora.targets"):
        message = (
            "Wqkv is one fused module in the trainer; it is counted as three, to_q, to_k and to_v,"
            " whose adapters are half as large again."
        )
        run.note("note", "fused-wqkv", message, at="train.lora.targets")


def _precision(run: Draft) -> None:
    half = run.get("_fp16")
    dtype = "fp16" if half else "fp32"
    run.put("precision.weights", dtype, like="_fp16")
    run.put("precision.autocast", None)
    run.put("precision.master", "fp32" if half else None)
    if run.get("train.method") == "lora":
        run.put("train.lora.dtype", dtype, like="_fp16")  # DeepSpeed's fp16 engine halves the whole module, adapters included
    if run.get("_extra_fp16"):
        run.put("precision.text_encoder", "fp16", like="_extra_fp16")
        run.put("precision.vae", "fp16", like="_extra_fp16")
    else:
        run.put("precision.vae", "fp32", like="_extra_fp16")


def _text(run: Draft) -> None:
    """CLIP's tokens and T5's stand one after the other in the cross-attention."""
    tokens = run.get("_text_len") + run.get("_text_len_t5")
    run.put("data.text_tokens", tokens, like="_text_len_t5" if "_text_len_t5" in run.origins else "_text_len")


def _parallel(run: Draft) -> None:
    run.assume("parallel.gpus", 1, "the launcher decides, and the config does not say how many it starts")
    if run.get("parallel.strategy") == "zero1":
        message = "use-zero-stage 1, the trainer's default, raises ValueError in hydit/ds_config.py; expected 2 or 3."
        key = run.origins.get("parallel.strategy") or _prefer("use_zero_stage", run.document)
        fix = f"set {key} to 2"
        run.findings.append(run.document.finding("zero-stage", "error", message, key=key, fix=fix))
    if run.get("parallel.strategy") == "zero3" and run.get("_zero_init") == 3:
        run.put("parallel.loading", "sharded", like="_zero_init")  # deepspeed.zero.Init
    if run.get("parallel.strategy") == "zero3" and run.get("_zero_init") != 3:
        message = "without zero-stage 3 every rank builds the whole model before ZeRO-3 divides it."
        run.note("warning", "zero-init", message, at="parallel.strategy", fix="set zero-stage to 3 beside use-zero-stage 3")
    for name, value in ZERO.get(run.get("parallel.strategy"), {}).items():
        run.put(f"parallel.zero.{name}", value)
    if run.get("parallel.strategy") == "zero3":
        message = (
            "hydit/ds_config.py sets stage3_param_persistence_threshold to 9e9 elements, more than any parameter has,"
            " so every GPU keeps all weights gathered and ZeRO-3 divides only gradients and optimizer states."
        )
        run.note("warning", "zero-persistence", message, at="parallel.strategy", fix="set it to 1e5, DeepSpeed's default")


def _phases(run: Draft) -> None:
    run.put("schedule.unit", "pass")  # train_steps counts forward passes, of which grad-accu-steps make an optimizer step
    run.put("save.final", True)
    if run.get("train.method") == "lora":
        run.put("save.optimizer", False)  # save_lora_weight: the adapters alone
    if not run.get("_samples"):
        run.drop("sample")
        return
    soonest = min("save.every", "save.latest_every", key=run.get)
    run.put("sample.every", run.get(soonest), like=soonest)
    run.put("sample.every_epochs", run.get("save.every_epochs"), like="save.every_epochs")
    run.put("sample.final", True)
    run.put("sample.batch", 1)
    run.put("sample.guidance", False)  # p_sample_loop without a null prompt


def _attention(run: Draft) -> None:
    if run.get("_infer_mode") == "fa" or run.get("_flash"):  # use_flash_attn = args.infer_mode == "fa" or args.use_flash_attn
        run.put("train.attention", "flash-attn", like="_flash" if "_flash" in run.origins else None)


def _remarks(run: Draft) -> None:
    if run.get("_infer_mode") == "fa" and "_flash" in run.origins and not run.get("_flash"):
        message = "flash attention stays on: the trainer uses it whenever infer-mode is fa, its default."
        run.note("note", "flash-stays", message, at="_flash", fix="set infer-mode to torch to turn it off")
    if run.get("_infer_mode") != "fa" and not run.get("_flash"):
        message = "attention is counted as flash attention; without it every head keeps its whole score matrix."
        run.note("warning", "no-flash", message, at="_infer_mode")
    if run.get("offload.optimizer"):
        message = "cpu-offloading moves only the optimizer: DeepSpeed does not know the trainer's key for parameters."
        run.note("note", "offload-optimizer-only", message, at="offload.optimizer")
    if run.get("_multireso"):
        message = "with multireso the batches differ in shape; image-size is counted, whose area the buckets keep to roughly."
        run.note("warning", "multireso", message, at="_multireso")


def _inverse(changes: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpointed fraction is two flags here."""
    answer = dict(changes)
    blocks = answer.pop("train.checkpointing", None)
    if blocks is not None:
        answer["_checkpointing"] = bool(blocks)
        answer["_gc_rate"] = blocks["fraction"] if isinstance(blocks, Mapping) else 1.0
    return answer


ADAPTER = Adapter(name="hunyuandit", matches=matches, read=read, tables=(TABLE,))
