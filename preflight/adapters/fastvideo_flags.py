"""FastVideo's fastvideo/training: the launch of a training pipeline, which is told everything by flags."""

from __future__ import annotations

from preflight.adapters import fastvideo_run as shared
from preflight.adapters import flags, launcher
from preflight.adapters.conversions import DTYPE, RANKS, SIDE, STEPS, choice, flag, flag_text, real, whole, words
from preflight.adapters.draft import Draft
from preflight.adapters.reading import Reading
from preflight.adapters.run_values import count, place
from preflight.adapters.table import Field
from preflight.document import Document
from preflight.finding import ConfigError

ARGS = "fastvideo/fastvideo_args.py"
TRAINS = ("wan_training_pipeline.py", "wan_i2v_training_pipeline.py", "cosmos2_5_training_pipeline.py")
#: Other programs of fastvideo/training, and what they train.
OTHERS = {
    "distillation_pipeline.py": "distillation with three networks",
    "ltx2_training_pipeline.py": "the video branch of LTX-2 alone",
    "matrixgame2_training_pipeline.py": "Matrix-Game 2",
    "causal_pipeline.py": "causal Wan",
    "diffusion_pipeline.py": "Matrix-Game 2",
}
BACKEND = "FASTVIDEO_ATTENTION_BACKEND"
KERNELS = {"VIDEO_SPARSE_ATTN": "vsa", "SLA_ATTN": "sla"}
number, side = flag_text(whole()), flag_text(whole(1, SIDE))
FIELDS = (
    Field(path="_source", keys=("pretrained_model_name_or_path", "model_path"), convert=place()),
    Field(path="_lora", keys=("lora_training",), convert=flag(), default=False, source=ARGS),
    Field(path="train.lora.rank", keys=("lora_rank",), convert=side),
    Field(path="train.lora.alpha", keys=("lora_alpha",), convert=flag_text(real(0, 1e6))),
    Field(path="train.lora.targets", keys=("lora_target_modules",), convert=words("module names", shared.MODULES)),
    Field(path="train.checkpointing", keys=("enable_gradient_checkpointing_type",),
          convert=choice("a type of checkpointing", shared.CHECKPOINTING), default=False, source=f"{ARGS}: None"),
    Field(path="_dit", keys=("dit_precision",), convert=DTYPE, default="bf16", source="fastvideo/configs/pipelines/base.py"),
    Field(path="parallel.gpus", keys=("num_gpus",), convert=flag_text(whole(1, RANKS)), default=1, source=ARGS),
    Field(path="parallel.sequence", keys=("sp_size",), convert=flag_text(whole(1, RANKS))),
    Field(path="_copies", keys=("hsdp_replicate_dim",), convert=flag_text(whole(1, RANKS)), default=1, source=ARGS),
    Field(path="parallel.shard", keys=("hsdp_shard_dim",), convert=flag_text(whole(1, RANKS))),
    Field(path="train.batch", keys=("train_batch_size",), convert=number),
    Field(path="data.workers", keys=("dataloader_num_workers",), convert=flag_text(count(0, RANKS))),
    Field(path="data.height", keys=("num_height",), convert=side),
    Field(path="data.width", keys=("num_width",), convert=side),
    Field(path="_latents", keys=("num_latent_t",), convert=side),
    Field(path="_frames", keys=("num_frames",), convert=side),
    Field(path="train.accumulation", keys=("gradient_accumulation_steps",), convert=flag_text(whole(1, STEPS)), default=1,
          source="the pipelines' own scripts"),
    Field(path="_sparsity", keys=("VSA_sparsity",), convert=flag_text(real(0, 1)), default=0.0, source=ARGS),
    Field(path="_quant", keys=("transformer_quant",), convert=place()),
    Field(path="_validates", keys=("log_validation",), convert=flag(), default=False, source=ARGS),
    Field(path="sample.every", keys=("validation_steps",), convert=flag_text(count())),
    Field(path="_guidance", keys=("validation_guidance_scale",), convert=flag_text(real(0, 1e3))),
    Field(path="save.every", keys=("training_state_checkpointing_steps",), convert=flag_text(count())),
    Field(path="save.keep", keys=("checkpoints_total_limit",), convert=flag_text(count())),
    Field(path="schedule.steps", keys=("max_train_steps",), convert=flag_text(count())),
    Field(path="schedule.epochs", keys=("num_train_epochs",), convert=flag_text(count())),
    Field(path="schedule.warmup", keys=("lr_warmup_steps",), convert=flag_text(count(0))),
    Field(path="paths.train", keys=("data_path",), convert=place()),
    Field(path="paths.validation", keys=("validation_dataset_file",), convert=place()),
    Field(path="paths.output", keys=("output_dir",), convert=place()),
    Field(path="paths.resume", keys=("resume_from_checkpoint",), convert=place()),
    *launcher.FIELDS,
)  # fmt: skip

TABLE = flags.flag_table(
    unread="{key} is not a flag of FastVideo's training pipelines, whose parser stops at it",
    fields=FIELDS,
    no_effect=(
        "tp_size", "train_sp_batch_size", "inference_mode", "mode", "workload_type", "mixed_precision", "learning_rate",
        "weight_decay", "max_grad_norm", "betas", "lr_scheduler", "lr_num_cycles", "lr_power", "min_lr_ratio",
        "scale_lr", "training_cfg_rate", "flow_shift", "embedded_cfg_scale", "seed", "tracker_project_name", "trackers",
        "wandb_run_name", "logging_dir", "cache_dir", "weight_only_checkpointing_steps", "validation_sampling_steps",
        "validation_preprocessed_path", "num_euler_timesteps", "multi_phased_distill_schedule", "not_apply_cfg_solver",
        "ema_start_step", "ema_decay", "use_ema", "weighting_scheme", "logit_*", "mode_scale", "precondition_outputs",
        "group_frame", "group_resolution", "VSA_decay_*", "VSA_cache_tile_buf", "VSA_tile_size", "vae_*",
        "dit_cpu_offload", "dit_layerwise_offload", "text_encoder_*", "image_encoder_*", "pin_cpu_memory",
        "pipeline_config_path", "dit_model_name_or_path", "master_port", "master_weight_type", "fsdp_sharding_startegy",
        "selective_checkpointing", "log_visualization", "visualization_steps", "trust_remote_code", "linear_*",
        "scheduler_type", "distill_cfg", "pred_decay_*", "lora_path", "lora_nickname", "override_transformer_cls_name",
        "init_weights_from_safetensors*",
    ),
)  # fmt: skip


def matches(document: Document) -> bool:
    launch = document.launch
    name = launch.program.replace("\\", "/") if launch is not None else ""
    old = flags.runs(document, *TRAINS) or any(name.endswith(end) for end in OTHERS)
    return old and any(key in document.data for key in ("--num_latent_t", "--num-latent-t", "--hsdp_shard_dim", "--hsdp-shard-dim"))


def read(document: Document) -> Reading:
    """Raises ConfigError for values that cannot be understood, and for pipelines that are not modelled."""
    launch = document.launch
    program = launch.program if launch is not None else ""
    if not flags.runs(document, *TRAINS):
        what = next((name for end, name in OTHERS.items() if program.endswith(end)), "what this trains")
        message = f"{program} is not modelled: {what}."
        raise ConfigError(document.finding("not-modelled", "error", message, key="--num_latent_t"))
    run = flags.draft(launcher.including(document), TABLE)
    shared.missing(run, {"_source": "--pretrained_model_name_or_path", "_latents": "--num_latent_t", "data.height": "--num_height",
                         "data.width": "--num_width", "train.batch": "--train_batch_size"})  # fmt: skip
    shared.model(run, str(run.get("_source")), "_source", _sparse(run))
    shared.whole(run, {"_quant": "training in fewer bits"})
    _method(run)
    shared.precision(run, like="_dit")
    launcher.settle(run, distributed=False)
    run.assume("parallel.sequence", run.get("parallel.gpus"), f"{ARGS}: sp_size is num_gpus where nothing is said")
    shared.shards(run)
    shared.frames(run)
    if not run.get("_validates"):
        run.drop("sample")
    else:
        run.put("sample.guidance", run.get("_guidance", 6.0) > 1, like="_guidance")
        shared.tiling(run)
    run.put("save.final", True)
    shared.vae(run)
    if run.get("_dit") != "fp32" and run.get("train.method") == "full":
        message = f"parameters rest in {run.get('_dit')}, and the optimizer's steps are rounded to it; the authors train with fp32."
        run.note("warning", "no-master-weights", message, at="_dit", fix="--dit_precision fp32")
    return run.reading(lambda changes: shared.inverse(run, changes))


def _sparse(run: Draft) -> str | None:
    """The environment alone chooses (training_pipeline.py), and the sparsity is only how much is left out."""
    launch = run.document.launch
    said = str(launch.environment.get(BACKEND)) if launch is not None and BACKEND in launch.environment else None
    if said in KERNELS:
        return KERNELS[said]
    if run.get("_sparsity"):
        message = f"{run.origins['_sparsity']} has no effect unless {BACKEND} is VIDEO_SPARSE_ATTN, which is not set here."
        run.note("warning", "attention-not-chosen", message, at="_sparsity", fix=f"export {BACKEND}=VIDEO_SPARSE_ATTN")
    return None


def _method(run: Draft) -> None:
    if not run.get("_lora"):
        run.put("train.method", "full", like="_lora")
        run.drop("train.lora")
        return
    run.put("train.method", "lora", like="_lora")
    if "train.lora.rank" not in run.settled:
        message = "--lora_rank is missing, and FastVideo stops without it when lora_training is true."
        run.findings.append(run.document.finding("missing-key", "error", message, key="--lora_training"))
        run.check()
    run.assume("train.lora.alpha", run.get("train.lora.rank"), f"{ARGS}: the rank where nothing is said")
    run.assume("train.lora.targets", shared.TARGETS, "fastvideo/pipelines/lora_pipeline.py: LoRAPipeline")
