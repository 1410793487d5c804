"""LoRA on Wan 2.1 and 2.2: flat or grouped YAML in the words that Wan's own scripts, DiffSynth, musubi and diffusers share."""

from __future__ import annotations

import re
from collections.abc import Mapping

from preflight.adapters.conversions import COUNT, DTYPE, RANKS, SIDE, SILENT, STEPS, choice, flag, gib, real, size, whole, words
from preflight.adapters.draft import Draft, draft, said
from preflight.adapters.reading import Adapter, Assumed, Reading
from preflight.adapters.run_values import both, count, place
from preflight.adapters.table import Field, Table
from preflight.adapters.wan_values import MODULES, SIZES, gpu, gpus, guidance, mixed_precision, model, optimizer
from preflight.document import Document
from preflight.finding import ConfigError

STRATEGIES = {
    "ddp": "ddp", "multi_gpu": "ddp", "fsdp": "fsdp", "none": "none", "no": "none",
    "zero1": "zero1", "zero2": "zero2", "zero3": "zero3", "zero-1": "zero1", "zero-2": "zero2", "zero-3": "zero3",
    "deepspeed_zero1": "zero1", "deepspeed_zero2": "zero2", "deepspeed_zero3": "zero3",
}  # fmt: skip
METHODS = {"lora": "lora", "full": "full", "sft": "full", "full_finetune": "full"}
DIFFSYNTH = "DiffSynth-Studio's default (diffsynth/diffusion/parsers.py)"
ALL_SIX = ("q", "k", "v", "o", "ffn.0", "ffn.2")
SAMPLING = ("inference", "sampling", "validation", "sample")
PLAN = "the default of Wan's configs (wan/configs/shared_config.py)"


def under(groups: tuple[str, ...], *names: str) -> tuple[str, ...]:
    """`names` as keys in each of `groups`."""
    return tuple(f"{group}.{name}" for group in groups for name in names)


FIELDS = (
    Field(path="model.name", convert=model(),
          keys=("model_name", "model", "base_model", "model_id", "model.name", "model.model_name", "model.id", "model_type",
                "model.type", "pretrained_model_name_or_path", "model_version", "model.version", "model_variant")),
    Field(path="model.name", convert=model(path=True), keys=("task", "wan_task")),
    Field(path=("model.name", "paths.model"), convert=both(model(path=True), place(local=True)), precedence=-1,
          keys=("ckpt_dir", "checkpoint_dir", "model_path", "model_dir", "base_model_path", "model.path", "dit_path", "dit",
                "model_id_with_origin_paths", "model_paths")),
    Field(path="train.method", convert=choice("a method", METHODS), default="lora", source="this family trains LoRA",
          keys=("training_type", "train_type", "train_method", "method", "finetuning_type")),
    Field(path="train.method", convert=flag("lora", "full"), keys=("use_lora", "lora", "enable_lora", "lora.enabled")),
    Field(path="train.lora.rank", convert=whole(1, SIDE), default=32, source=DIFFSYNTH,
          keys=("lora_rank", "lora_r", "rank", "lora.r", "network_dim", "lora_dim", "lora.dim")),
    Field(path="train.lora.alpha", keys=("lora_alpha", "network_alpha", "lora.alpha"), convert=whole(1, SIDE)),
    Field(path="train.lora.targets", convert=words("module names", MODULES), source=DIFFSYNTH,
          default=[name for ours in ALL_SIX for name in MODULES[ours]],
          keys=("target_modules", "lora_target_modules", "lora_targets", "lora.targets", "target_names", "network_targets")),
    Field(path="train.lora.dtype", convert=DTYPE, default="fp32", keys=("lora_dtype", "trainable_dtype", "lora.dtype"),
          source="peft keeps adapters in float32 over a low-precision base (autocast_adapter_dtype)"),
    Field(path="train.lora.dropout", keys=("lora_dropout", "lora.dropout", "network_dropout"), convert=real(0, 1)),
    Field(path="train.batch", convert=whole(), default=1, source="DiffSynth-Studio's loader, which knows no other",
          keys=("batch_size", "train_batch_size", "per_device_train_batch_size", "batch_size_per_gpu", "per_gpu_batch_size",
                "micro_batch_size_per_gpu", "micro_batch_size", "train_batch_size_per_gpu")),
    Field(path="train.accumulation", convert=whole(), default=1, source=DIFFSYNTH,
          keys=("gradient_accumulation_steps", "gradient_accumulation", "grad_accum_steps", "grad_accum", "accumulation_steps",
                "accumulate_grad_batches", "grad_accumulation_steps")),
    Field(path="train.checkpointing", convert=flag(), default=False,
          source="off unless the config asks for it, as in diffusers, musubi-tuner and finetrainers",
          keys=("gradient_checkpointing", "use_gradient_checkpointing", "grad_checkpointing", "activation_checkpointing",
                "enable_gradient_checkpointing", "gradient_checkpoint")),
    Field(path="train.optimizer.bits", convert=flag(8, 32), default=32, source="torch keeps AdamW's states in float32",
          keys=("use_8bit_adam", "use_8bit_optimizer", "use_8bit_adamw", "adam_8bit", "optimizer_8bit", "optimizer.use_8bit",
                "use_8bit", "8bit_adam", "8bit_optimizer")),
    Field(path=("train.optimizer.name", "train.optimizer.bits"), convert=optimizer(), default=("adamw", 32),
          source="the AdamW that DiffSynth-Studio, musubi-tuner and diffusers' scripts use",
          keys=("optimizer", "optimizer_type", "optim", "optimizer.type", "optimizer.name", "optimizer_name")),
    Field(path="train.ema", keys=("use_ema", "ema"), convert=flag()),
    Field(path=("data.width", "data.height"), convert=size("wh", named=SIZES),
          keys=("size", "resolution", "video_size", "target_resolution", "video_resolution", "train_resolution", "target_size",
                "video_sample_size", "train_size")),
    Field(path="data.height", keys=("height", "video_height", "train_height", "num_height"), convert=whole(1, SIDE)),
    Field(path="data.width", keys=("width", "video_width", "train_width", "num_width"), convert=whole(1, SIDE)),
    Field(path="data.frames", convert=whole(1, SIDE),
          keys=("frame_num", "num_frames", "frames", "n_frames", "video_length", "max_frames", "target_frames", "num_video_frames",
                "video_sample_n_frames", "max_num_frames", "frame_number")),
    Field(path="data.fps", keys=("fps", "target_fps", "train_fps", "video_fps"), convert=real(0.01, 1000)),
    Field(path="data.text_tokens", convert=whole(1, SIDE), default=512, source=PLAN + ": text_len",
          keys=("max_caption_length", "text_len", "text_length", "caption_length", "max_sequence_length", "max_text_length",
                "max_length", "tokenizer_max_length", "max_token_length")),
    Field(path="data.latents", convert=flag("cached", SILENT), precedence=1,
          keys=("cache_latents", "cached_latents", "precomputed_latents", "use_cached_latents", "precompute_latents")),
    Field(path="data.latents", convert=flag("offloaded", "online"), default="online",
          source="the VAE encodes each batch and stays on the GPU unless it is offloaded or the latents are cached",
          keys=("cpu_offload_vae", "vae_cpu", "offload_vae", "vae_offload", "vae_cpu_offload", "vae_on_cpu",
                *under(("vae",), "cpu", "offload", "cpu_offload"))),
    Field(path="data.text", convert=flag("cached", SILENT), precedence=1,
          keys=("cache_text_embeddings", "cache_text_encoder_outputs", "cached_text", "cache_text", "precomputed_text_embeddings",
                "use_cached_text_embeddings", "cache_t5")),
    Field(path="data.text", convert=flag("offloaded", "online"), default="online",
          source="T5 encodes each batch and stays on the GPU unless it is offloaded or its output is cached",
          keys=("t5_cpu", "cpu_offload_t5", "offload_t5", "t5_offload", "t5_cpu_offload", "text_encoder_cpu",
                "offload_text_encoder", "t5_on_cpu", "cpu_offload_text_encoder",
                *under(("t5", "text_encoder"), "cpu", "offload", "cpu_offload"))),
    Field(path=("precision.weights", "precision.autocast"), convert=mixed_precision(), default=("bf16", "bf16"),
          source=PLAN + ": param_dtype", keys=("mixed_precision", "precision", "autocast_dtype")),
    Field(path="precision.weights", convert=DTYPE, precedence=1,
          keys=("weights_dtype", "weight_dtype", "model_dtype", "dit_dtype", "param_dtype", "dtype", "torch_dtype", "base_dtype")),
    Field(path="precision.text_encoder", keys=("t5_dtype", "text_encoder_dtype", "t5.dtype", "text_encoder.dtype"), convert=DTYPE),
    Field(path="precision.vae", keys=("vae_dtype", "vae.dtype"), convert=DTYPE),
    Field(path="parallel.strategy", convert=flag("fsdp", SILENT), keys=("dit_fsdp", "use_fsdp", "fsdp", "enable_fsdp")),
    Field(path="parallel.strategy", convert=choice("a strategy", STRATEGIES),
          keys=("strategy", "distributed_strategy", "distributed_type", "parallel_strategy", "distributed_mode",
                "distributed.type", "distributed.mode")),
    Field(path="parallel.strategy", convert=choice("a ZeRO stage", {"0": "ddp", "1": "zero1", "2": "zero2", "3": "zero3"}),
          keys=("zero_stage", "deepspeed_stage")),
    Field(path="parallel.gpus", convert=gpus(),
          keys=("num_gpus", "gpus", "world_size", "num_processes", "n_gpus", "gpu_count", "num_gpu", "gpu_num", "gpu_ids")),
    Field(path="parallel.nodes", keys=("nodes", "num_nodes", "nnodes", "num_machines"), convert=whole(1, RANKS)),
    Field(path="_gpus_per_node", keys=("nproc_per_node", "gpus_per_node", "num_gpus_per_node"), convert=whole(1, RANKS)),
    Field(path="parallel.sequence", convert=whole(1, RANKS), default=1, source="Wan's own --ulysses_size (generate.py)",
          keys=("ulysses_size", "sp_size", "sequence_parallel_size", "ulysses_degree", "sequence_parallel_degree")),
    Field(path="_ring", keys=("ring_size", "ring_degree"), convert=whole(1, RANKS)),
    Field(path="parallel.tensor", keys=("tp_size", "tensor_parallel_size", "tp_degree"), convert=whole(1, RANKS)),
    Field(path="_t5_fsdp", keys=("t5_fsdp", "t5.fsdp"), convert=flag()),
    Field(path="offload.optimizer", convert=flag(),
          keys=("cpu_offload_optimizer", "offload_optimizer", "optimizer_cpu_offload", "optimizer_offload")),
    Field(path="offload.parameters", convert=flag(),
          keys=("cpu_offload_params", "offload_params", "offload_parameters", "fsdp_cpu_offload", "fsdp_offload_params",
                "enable_model_cpu_offload")),
    Field(path="offload.activations", convert=flag(),
          keys=("gradient_checkpointing_offload", "use_gradient_checkpointing_offload", "gradient_checkpointing_cpu_offload",
                "cpu_offload_activations", "offload_activations")),
    Field(path="offload.blocks", keys=("blocks_to_swap", "offload_blocks", "block_swap"), convert=whole(0, SIDE)),
    Field(path="sample.every", convert=whole(1, STEPS),
          keys=("eval_steps", "validation_steps", "sample_every_n_steps", "eval_every", "sample_every", "validation_every",
                "validation_interval", "eval_interval", "sample_every_steps", "eval.steps",
                *under(("eval", "validation", "sample"), "every"))),
    Field(path="sample.steps", convert=whole(1, SIDE),
          keys=("sample_steps", "sampling_steps", "num_inference_steps", "inference_steps", "infer_steps",
                *under(SAMPLING, "sample_steps", "sampling_steps", "num_inference_steps", "steps"))),
    Field(path="sample.frames", convert=whole(1, SIDE), keys=("sample_frames", "validation_frames", "sample_num_frames",
          *under(SAMPLING, "frame_num", "num_frames", "frames", "frame_number"))),
    Field(path=("sample.width", "sample.height"), convert=size("wh", named=SIZES),
          keys=("sample_size", "validation_size", "sample_resolution", *under(SAMPLING, "size", "resolution"))),
    Field(path="sample.guidance", keys=("sample_guide_scale", "guide_scale", "guidance_scale",
          *under(SAMPLING, "sample_guide_scale", "guide_scale", "guidance_scale")), convert=guidance()),
    Field(path="sample.guidance", keys=("cfg_scale",), convert=guidance(), precedence=-1),
    Field(path="sample.every_epochs", convert=whole(1, STEPS),
          keys=("sample_every_n_epochs", "eval_epochs", "eval_every_n_epochs", "validation_epochs")),
    Field(path="save.every", convert=whole(1, STEPS),
          keys=("save_steps", "checkpointing_steps", "save_every", "checkpoint_every", "save_interval", "save_every_n_steps",
                "checkpoint_steps", "checkpoint_interval")),
    Field(path="save.every_epochs", convert=whole(1, STEPS),
          keys=("save_epochs", "save_every_n_epochs", "checkpoint_every_n_epochs")),
    Field(path="save.keep", keys=("save_total_limit", "checkpoints_total_limit", "keep_last"), convert=whole()),
    Field(path="save.optimizer", keys=("save_optimizer", "save_optimizer_state", "save_state"), convert=flag()),
    Field(path="schedule.samples", keys=("train_samples", "num_train_samples"), convert=count()),
    Field(path="schedule.validation_samples", convert=count(),
          keys=("val_samples", "num_val_samples", "validation_samples", "eval_samples")),
    Field(path="schedule.epochs", keys=("epochs", "num_epochs", "num_train_epochs", "max_epochs"), convert=count()),
    Field(path="schedule.steps", keys=("max_steps", "max_train_steps"), convert=count()),
    Field(path="schedule.warmup", keys=("warmup_steps", "lr_warmup_steps", "num_warmup_steps"), convert=count(0)),
    Field(path="schedule.effective_batch", keys=("effective_batch_size", "global_batch_size", "total_batch_size"), convert=count()),
    Field(path="data.workers", keys=("num_workers", "dataloader_num_workers", "dataset_num_workers"), convert=count(0, COUNT)),
    Field(path="data.prefetch", keys=("prefetch_factor", "dataloader_prefetch_factor"), convert=count(1, COUNT)),
    Field(path="paths.train", keys=("train_csv", "train_data", "train_data_path", "train_data_dir", "dataset_metadata_path",
          "dataset_path", "data_path", "data_dir", "dataset_base_path"), convert=place()),
    Field(path="paths.validation", keys=("val_csv", "val_data", "val_data_path", "val_data_dir"), convert=place()),
    Field(path="paths.resume", keys=("resume_from", "resume_path", "resume_from_checkpoint"), convert=place(local=True)),
    Field(path="paths.output", keys=("output_dir", "output_path"), convert=place()),
    Field(path="precision.tf32", keys=("allow_tf32", "enable_tf32", "tf32"), convert=flag()),
    Field(path=("hardware.gpu", "_gpus_named"), convert=gpu(), keys=("gpu_type", "gpu", "gpu_name", "gpu_model")),
    Field(path="_gpu_memory", keys=("gpu_memory", "gpu_memory_gb", "gpu_memory_gib", "vram"), convert=gib(gb_is_gib=True)),
    Field(path="hardware.host_memory_gib", keys=("ram", "ram_gb", "host_memory_gib"), convert=gib(gb_is_gib=True)),
    Field(path="hardware.disk_free_gib", keys=("disk", "disk_gb", "disk_free_gib"), convert=gib(gb_is_gib=False)),
)  # fmt: skip

#: Known, and without effect on memory: rates, schedules, names, paths, logging, and what only decides how long a run takes.
NO_EFFECT = (
    "learning_rate", "lr", "*weight_decay", "*betas", "*adam_beta*", "eps", "*_eps", "*epsilon", "momentum", "*warmup*",
    "*scheduler*", "min_lr", "final_lr", "eta_min", "*max_grad_norm", "*grad_clip*", "gradient_clipping", "epochs", "num_epochs",
    "num_train_epochs", "max_epochs", "max_steps", "max_train_steps", "total_steps", "lora_bias", "bias", "init_lora_weights",
    "lora_plus*", "seed", "random_seed", "logging_*", "log_*", "logging", "report_to*", "*wandb*", "*tensorboard*", "run_name",
    "resume*", "*output_dir", "*output_path", "train_csv", "val_csv", "train_data*", "val_data*", "data_dir", "data_root",
    "data_path", "dataset", "dataset_*", "metadata*", "num_workers", "dataloader_*", "pin_memory", "prefetch_factor", "shuffle",
    "split_ratio", "*_samples", "*_column", "num_train_timesteps", "num_timesteps", "timesteps", "boundary*", "*shift",
    "*_fps", "cfg_dropout*", "uncond*", "caption_dropout*", "t5_checkpoint", "t5_tokenizer", "vae_checkpoint", "vae_path",
    "t5_path", "vae_stride", "patch_size", "cuda", "cuda_version", "python", "torch_version", "prompt*", "negative_prompt",
    "sample_prompts", "sample_solver", "solver", "description", "name", "experiment_name", "project*", "notes", "version",
    "effective_batch_size", "global_batch_size", "*vae_batch_size", "vae_encode_batch_size", "offload_model", "master_port",
    "convert_model_dtype", "noise_level", "expert", "train_expert", "tracker*", "entity", "steps", "enabled",
    "remove_prefix_in_ckpt", "lora_base_model", "lora_checkpoint", "extra_inputs", "find_unused_parameters",
    "data_file_keys", "preset_lora_*",
    "inference.*", "sampling.*", "validation.*", "sample.*", "eval.*", "vae.*", "t5.*", "text_encoder.*",
)  # fmt: skip

SECTIONS = frozenset({
    "model", "lora", "network", "training", "train", "data", "dataset", "video", "optimizer", "optimization", "distributed",
    "parallel", "parallelism", "memory", "memory_optimization", "logging", "checkpoint", "checkpointing", "hardware", "system",
    "precision", "offload", "resolution", "scheduler", "cfg", "wan", "config", "general", "trainer", "save", "performance",
})  # fmt: skip

TABLE = Table(
    unread="{key} is not a setting of Wan's LoRA trainers that preflight knows, so it is not counted",
    fields=FIELDS,
    no_effect=NO_EFFECT,
    sections=SECTIONS,
    locate=lambda parts: tuple(part.lower().replace("-", "_") for part in parts),
)


#: Keys by which a config that names a Wan is another trainer's: SimpleTuner's, musubi-tuner's.
FOREIGN = frozenset({"model_family", "model_flavour", "network_module"})


def matches(document: Document) -> bool:
    """A model that is a Wan; without a model's name, a LoRA rank beside frames or a size."""
    groups = (document.data, *(group for group in document.data.values() if isinstance(group, Mapping)))
    if FOREIGN & {str(name).lstrip("-").lower() for group in groups for name in group}:
        return False
    heard = said(document, TABLE)
    names = [voice.value for voice in heard.get("model.name", [])]
    if names:
        return any(str(name).startswith("wan") for name in names)
    return "train.lora.rank" in heard and any(f"data.{side}" in heard for side in ("frames", "width", "height"))


def read(document: Document) -> Reading:
    """Raises ConfigError for values that cannot be understood, or when no key says which Wan it is."""
    run = draft(document, TABLE)
    if run.get("model.name") is None:
        message = "the config does not say which Wan model it trains; expected model_name, task or ckpt_dir."
        fix = "add model_name: Wan2.2-T2V-A14B, or the Wan that this run trains"
        raise ConfigError(*run.findings, document.finding("missing-key", "error", message, key="model_name", fix=fix))
    _shape(run)
    _method(run)
    _parallel(run)
    _phases(run)
    _hardware(run)
    _remarks(run)
    return run.reading()


def _shape(run: Draft) -> None:
    small = run.get("model.name") == "wan2.2-ti2v-5b"
    width, height = (1280, 704) if small else (1280, 720)
    source = "--size of Wan's generate.py" if not small else "the one 720p size of TI2V-5B (wan/configs/__init__.py)"
    run.assume("data.width", width, source)
    run.assume("data.height", height, source)
    run.assume("data.frames", 121 if small else 81, "frame_num of Wan's configs")


def _method(run: Draft) -> None:
    if run.get("train.method") == "full":
        run.drop("train.lora")
        return
    if "train.lora.alpha" not in run.settled:
        run.put("train.lora.alpha", run.get("train.lora.rank"), like="train.lora.rank")
        run.origins.pop("train.lora.alpha", None)
        run.assumed["train.lora.alpha"] = Assumed(value=run.get("train.lora.rank"), source="the rank, " + DIFFSYNTH)


def _parallel(run: Draft) -> None:
    if "_gpus_per_node" in run.settled:
        run.assume("parallel.nodes", 1, "torchrun's default")
        if "parallel.gpus" not in run.settled:
            run.put("parallel.gpus", run.get("_gpus_per_node") * run.get("parallel.nodes"), like="_gpus_per_node")
    if "_gpus_named" in run.settled and "parallel.gpus" not in run.settled:
        run.put("parallel.gpus", run.get("_gpus_named"), like="_gpus_named")
    if "_ring" in run.settled and run.get("_ring") > 1:
        run.put("parallel.sequence", run.get("parallel.sequence") * run.get("_ring"), like="_ring")
    split = run.get("parallel.sequence") * run.get("parallel.tensor", 1)
    run.assume("parallel.gpus", split, "the config does not count GPUs: the fewest that it can run on")
    plain = "ddp" if run.get("parallel.gpus") > 1 else "none"
    run.assume("parallel.strategy", plain, "what torchrun does with several GPUs when nothing is sharded")


def _phases(run: Draft) -> None:
    for phase in ("sample", "save"):
        if f"{phase}.every" not in run.settled and f"{phase}.every_epochs" not in run.settled:
            run.drop(phase)


def _hardware(run: Draft) -> None:
    memory, name = run.get("_gpu_memory"), run.get("hardware.gpu")
    if memory and name and not re.search(r"\d+ ?-?g", name.lower()):
        run.put("hardware.gpu", f"{name} {memory:g}GB", like="hardware.gpu")


def _remarks(run: Draft) -> None:
    if "a14b" in str(run.get("model.name")):
        run.note(
            "note",
            "one-expert",
            "Wan2.2 A14B has two experts of 14B each; one is counted, because trainers load and train one expert a run.",
            at="model.name",
        )
    if run.get("_t5_fsdp") and run.get("data.text") == "offloaded":
        message = "T5 is on the CPU, so there is nothing on the GPUs that sharding it could divide."
        run.note("note", "t5-fsdp", message, at="_t5_fsdp", fix="leave t5_fsdp out, or T5 on the GPUs")
    if run.get("_t5_fsdp") and run.get("data.text") == "online":
        run.note("warning", "t5-fsdp", "sharding of T5 is not counted: a whole T5 is, on every GPU.", at="_t5_fsdp")


ADAPTER = Adapter(name="wan-lora", matches=matches, read=read, tables=(TABLE,))
