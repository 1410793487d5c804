"""finetrainers: a launch of its train.py with the training JSON and the validation JSON that it names.

Flags and defaults are those of finetrainers/args.py and trainer/*/config.py of github.com/a-r-r-o-w/finetrainers (commit f476c37),
and of finetrainers/args.py of its v0.0.1, which takes the data set by flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from preflight.adapters import finetrainers_run, flags, launcher
from preflight.adapters.conversions import COUNT, RANKS, SIDE, STEPS, choice, flag, flag_text, real, text, whole
from preflight.adapters.finetrainers_values import buckets, patterns, prompts
from preflight.adapters.reading import Adapter, Reading
from preflight.adapters.run_values import count, place
from preflight.adapters.table import Field
from preflight.document import Document
from preflight.finding import ConfigError

ARGS, LORA = "finetrainers/args.py", "trainer/sft_trainer/config.py"
#: config.py: ModelType, and TrainingType with the method that each is.
MODELS = ("cogvideox", "cogview4", "flux", "hunyuan_video", "ltx_video", "wan")
TYPES = {"lora": "lora", "full-finetune": "full", "control-lora": "lora", "control-full-finetune": "full"}
#: optimizer.py: get_optimizer; bitsandbytes' own 32-bit optimizers keep float32 states.
OPTIMIZERS = {
    "adam": "adam", "adamw": "adamw", "adam-bnb": "adam32bit", "adamw-bnb": "adamw32bit", "adam-bnb-8bit": "adam8bit",
    "adamw-bnb-8bit": "adamw8bit", "prodigy": "prodigy", "came": "came",
}  # fmt: skip
DTYPES = {"bf16": "bf16", "fp16": "fp16", "fp32": "fp32"}
STORED = {"float8_e4m3fn": "fp8", "float8_e5m2": "fp8"}

DTYPE = choice("a dtype", DTYPES, exact=True)
number, side, degree = flag_text(whole()), flag_text(whole(1, SIDE)), flag_text(whole(1, RANKS))
FIELDS = (
    Field(path="_family", keys=("model_name",), convert=choice("a model", {name: name for name in MODELS}, exact=True)),
    Field(path="_model", keys=("pretrained_model_name_or_path",), convert=text("a model such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers")),
    Field(path="_transformer", keys=("transformer_id",), convert=text("a transformer's name")),
    Field(path="_type", keys=("training_type",), convert=choice("a way to train", {name: name for name in TYPES}, exact=True)),
    Field(path="train.lora.rank", keys=("rank",), convert=side, default=64, source=f"{LORA}: --rank"),
    Field(path="train.lora.alpha", keys=("lora_alpha",), convert=flag_text(real(0, 1e6)), default=64,
          source=f"{LORA}: --lora_alpha"),
    Field(path="_targets", keys=("target_modules",), convert=patterns()),
    Field(path="_norms", keys=("train_qk_norm",), convert=flag()),
    Field(path="train.batch", keys=("batch_size",), convert=number, default=1, source=f"{ARGS}: --batch_size"),
    Field(path="train.accumulation", keys=("gradient_accumulation_steps",), convert=flag_text(whole(1, STEPS)), default=1,
          source=f"{ARGS}: --gradient_accumulation_steps"),
    Field(path="train.checkpointing", keys=("gradient_checkpointing",), convert=flag(), default=False,
          source=f"{ARGS}: --gradient_checkpointing"),
    Field(path="train.optimizer.name", keys=("optimizer",), convert=choice("an optimizer", OPTIMIZERS), default="adam",
          source=f"{ARGS}: --optimizer"),
    Field(path="_narrow", keys=("use_8bit_bnb",), convert=flag()),
    Field(path="precision.weights", keys=("transformer_dtype",), convert=DTYPE, default="bf16",
          source=f"{ARGS}: --transformer_dtype"),
    Field(path="precision.text_encoder", keys=("text_encoder_dtype",), convert=DTYPE, default="bf16",
          source=f"{ARGS}: --text_encoder_dtype"),
    Field(path="precision.vae", keys=("vae_dtype",), convert=DTYPE, default="bf16",
          source=f"{ARGS}: --vae_dtype"),
    Field(path="_upcast", keys=("layerwise_upcasting_modules",),
          convert=choice("a module", {"transformer": "transformer"}, exact=True)),
    Field(path="_stored", keys=("layerwise_upcasting_storage_dtype",), convert=choice("a dtype", STORED, exact=True)),
    Field(path="precision.tf32", keys=("allow_tf32",), convert=flag()),
    Field(path=("data.frames", "data.height", "data.width"), keys=("dataset.datasets.*.video_resolution_buckets",),
          convert=buckets(frames=True), among="largest"),
    Field(path=("data.frames", "data.height", "data.width"), keys=("video_resolution_buckets",), convert=buckets(frames=True),
          precedence=1),
    Field(path=("_image.height", "_image.width"), keys=("dataset.datasets.*.image_resolution_buckets",),
          convert=buckets(frames=False), among="largest"),
    Field(path=("_image.height", "_image.width"), keys=("image_resolution_buckets",), convert=buckets(frames=False), precedence=1),
    Field(path="_cached", keys=("enable_precomputation", "precompute_conditions"), convert=flag(), default=False,
          source=f"{ARGS}: --enable_precomputation"),
    Field(path="_reused", keys=("precomputation_reuse",), convert=flag()),
    Field(path="data.workers", keys=("dataloader_num_workers",), convert=flag_text(count(0, COUNT)), default=0,
          source=f"{ARGS}: --dataloader_num_workers"),
    Field(path="_backend", keys=("parallel_backend",), convert=choice("a backend", {"accelerate": "accelerate", "ptd": "ptd"}),
          default="accelerate", source=f"{ARGS}: --parallel_backend"),
    *(Field(path=f"_degree.{name}", keys=(f"{name}_degree",), convert=degree, default=1, source=f"{ARGS}: --{name}_degree")
      for name in ("pp", "dp", "cp", "tp")),
    Field(path="_degree.shards", keys=("dp_shards",), convert=degree, default=1, source=f"{ARGS}: --dp_shards"),
    Field(path="_compiled", keys=("compile_modules",), convert=patterns()),
    Field(path="_validation", keys=("validation_dataset_file",), convert=place()),
    Field(path=("sample.frames", "sample.height", "sample.width"), keys=("validation_prompts",), convert=prompts()),
    Field(path="_validated.frames", keys=("validation.data.*.num_frames",), convert=side, among="largest"),
    Field(path="_validated.height", keys=("validation.data.*.height",), convert=side, among="largest"),
    Field(path="_validated.width", keys=("validation.data.*.width",), convert=side, among="largest"),
    Field(path="sample.steps", keys=("validation.data.*.num_inference_steps",), convert=side, among="largest"),
    Field(path="_guidance", keys=("validation.data.*.guidance_scale",), convert=flag_text(real(0, 1e6)), among="largest"),
    Field(path="sample.every", keys=("validation_steps",), convert=flag_text(count()), default=500,
          source=f"{ARGS}: --validation_steps"),
    Field(path="sample.offload", keys=("enable_model_cpu_offload",), convert=flag(), default=False,
          source=f"{ARGS}: --enable_model_cpu_offload"),
    Field(path="sample.tiling", keys=("enable_tiling",), convert=flag(), default=False, source=f"{ARGS}: --enable_tiling"),
    Field(path="save.every", keys=("checkpointing_steps",), convert=flag_text(count()), default=500,
          source=f"{ARGS}: --checkpointing_steps"),
    Field(path="save.keep", keys=("checkpointing_limit",), convert=flag_text(count())),
    Field(path="schedule.steps", keys=("train_steps",), convert=flag_text(count()), default=1000, source=f"{ARGS}: --train_steps"),
    Field(path="schedule.warmup", keys=("lr_warmup_steps",), convert=flag_text(count(0))),
    Field(path="paths.train", keys=("dataset_config", "data_root"), convert=place()),
    Field(path="paths.output", keys=("output_dir",), convert=place(), default="finetrainers-training",
          source=f"{ARGS}: --output_dir"),
    Field(path="paths.resume", keys=("resume_from_checkpoint",), convert=place(local=True)),
    *launcher.FIELDS,
)  # fmt: skip

NO_EFFECT = (
    "attn_provider_*", "revision", "variant", "cache_dir", "tokenizer_id", "tokenizer_2_id", "tokenizer_3_id", "text_encoder_id",
    "text_encoder_2_id", "text_encoder_3_id", "vae_id", "text_encoder_2_dtype", "text_encoder_3_dtype",
    "layerwise_upcasting_skip_modules_pattern", "dataset_shuffle_buffer_size", "precomputation_items", "precomputation_dir",
    "precomputation_once", "pin_memory", "flow_*", "seed", "max_data_samples", "enable_slicing", "lr", "lr_scheduler",
    "lr_num_cycles", "lr_power", "scale_lr", "beta1", "beta2", "beta3", "weight_decay", "epsilon", "max_grad_norm", "tracker_name",
    "push_to_hub", "hub_token", "hub_model_id", "logging_dir", "logging_steps", "init_timeout", "nccl_timeout", "report_to",
    "verbose", "compile_scopes", "float32_matmul_precision", "list_models", "control_type", "frame_conditioning_*",
    "dataset_file", "video_column", "caption_column", "id_token", "video_reshape_mode", "caption_dropout_p",
    "caption_dropout_technique", "remove_common_llm_caption_prefixes", "validation_images", "validation_videos",
    "validation_separator", "num_validation_videos", "validation_epochs", "validation_frame_rate", "train_epochs",
    "dataset.datasets.*.*", "validation.data.*.*",
)  # fmt: skip

TABLE = flags.flag_table(
    unread="{key} is not a flag of finetrainers' train.py, whose parser stops at it",
    fields=FIELDS,
    no_effect=NO_EFFECT,
    files=("dataset", "validation"),
)


def matches(document: Document) -> bool:
    """A launch that names one of its models and a way to train it, or one of its two kinds of JSON."""
    if document.launch is None:
        return _is_data(document) is not None
    told = {str(key).lstrip("-").replace("-", "_"): value for key, value in document.data.items()}
    return {"model_name", "training_type", "pretrained_model_name_or_path"} <= told.keys() and (
        told["model_name"] in MODELS or "dataset_config" in told
    )


def _is_data(document: Document) -> tuple[str, str] | None:
    """The key that holds the samples of a data file, and what that is; None for another file."""
    for key, telling, what in (
        ("datasets", {"dataset_type", "video_resolution_buckets", "image_resolution_buckets"}, "finetrainers' list of data sets"),
        ("data", {"caption", "num_inference_steps"}, "finetrainers' list of what it generates to validate"),
    ):
        items = document.data.get(key)
        if isinstance(items, list) and items and all(isinstance(item, Mapping) and telling & item.keys() for item in items):
            return key, what
    return None


def read(document: Document) -> Reading:
    """Raises ConfigError for values that cannot be understood, and for a data file."""
    data = _is_data(document) if document.launch is None else None
    if data is not None:
        named = "--dataset_config" if data[0] == "datasets" else "--validation_dataset_file"
        message = f"This is {data[1]}, not a training config; give the launch script that names it with {named}."
        raise ConfigError(document.finding("not-a-training-config", "error", message, key=data[0]))
    document = launcher.including(document)
    for name, key in (("dataset", "dataset_config"), ("validation", "validation_dataset_file")):
        path = finetrainers_run.value(document, key)
        document = flags.including(document, name, path if isinstance(path, str) and path.endswith(".json") else None)
    run = flags.draft(document, TABLE)
    finetrainers_run.settle(run, TYPES)
    return run.reading(partial(finetrainers_run.inverse, run))


ADAPTER = Adapter(name="finetrainers", matches=matches, read=read, tables=(TABLE,))
