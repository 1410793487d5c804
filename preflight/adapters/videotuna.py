"""VideoTuna (VideoVerses): the YAML of scripts/train_new.py (flow, train) and of scripts/train.py (model, data, lightning).

Names and defaults are github.com/VideoVerses/VideoTuna (commit 0d49a54) and Lightning 2.4. Modelled are CogVideoX, HunyuanVideo
and Wan 2.1. The encoders are parts of the module that is trained: DeepSpeed casts them with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from preflight.adapters.draft import Draft, draft
from preflight.adapters.reading import Adapter, Reading
from preflight.adapters.videotuna_table import DATA, TABLE, TRAINER, prefer
from preflight.adapters.videotuna_values import NETWORKS, UNMODELLED
from preflight.document import Document
from preflight.finding import ConfigError

#: videotuna/data: the sizes that DatasetFromCSV (datasets.py) and VideoDataset (cogvideo_dataset.py) take by themselves.
SIZES = {"datasets.py: DatasetFromCSV": (256, 256, 16), "cogvideo_dataset.py: VideoDataset": (480, 720, 49)}


def matches(document: Document) -> bool:
    """A `flow` or `model` whose target is a class of the package videotuna."""
    return any(_target(document, key).startswith("videotuna.") for key in ("flow", "model"))


def _target(document: Document, key: str) -> str:
    block = document.data.get(key)
    return str(block.get("target", "")) if isinstance(block, Mapping) else ""


def read(document: Document) -> Reading:
    """Raises ConfigError for values that cannot be understood, for other networks, and for a config that only generates."""
    top = "flow" if "flow" in document.data else "model"
    target = _target(document, top)
    _training(document, top)
    for beginning, name in UNMODELLED.items():
        if target.startswith(beginning):
            message = f"{top}.target is {target}: {name} is not modelled yet."
            raise ConfigError(document.finding("not-modelled", "error", message, key=f"{top}.target"))
    run = draft(document, TABLE)
    _required(run)
    _model(run, target)
    _method(run, target)
    _parallel(run, top)
    _precision(run, top)
    _size(run)
    _phases(run, top, target)
    return run.reading(partial(_inverse, run))


def _training(document: Document, top: str) -> None:
    above = document.data.get("train") if top == "flow" else document.data
    missing = [name for name in ("data", "lightning") if not isinstance(above, Mapping) or name not in above]
    if not missing:
        return
    where = "a block train with data and lightning" if top == "flow" else "the blocks data and lightning"
    message = f"this config of VideoTuna generates and does not train, as it lacks {' and '.join(missing)}; expected {where}."
    raise ConfigError(document.finding("not-a-training-config", "error", message, key=top))


def _required(run: Draft) -> None:
    below = "train." if "flow" in run.document.data else ""
    if "train.batch" not in run.settled:
        message = f"{below}data.params.batch_size is missing, and VideoTuna has no default for it."
        run.findings.append(run.document.finding("missing-key", "error", message, key=f"{below}data.params.batch_size"))
    run.check()


def _model(run: Draft, target: str) -> None:
    at = "_task" if "_task" in run.settled or target.startswith("videotuna.flow.wan") else "_folder"
    said = str(run.get(at, "t2v-14B" if at == "_task" else "")).rstrip("/").rsplit("/", 1)[-1]
    if at not in run.settled and at == "_task":
        run.assume(at, said, "flow/wanvideo.py: WanVideoModelFlow")
    found = NETWORKS.get(said.lower())
    if found is None:
        key = run.origins.get(at, "model.params.denoiser_config.params.pretrained_model_name_or_path")
        message = f'{key} is "{said}", which is no network of VideoTuna that is modelled; expected one of {", ".join(NETWORKS)}.'
        raise ConfigError(run.document.finding("not-modelled", "error", message, key=key))
    run.put("model.name", found, like=at)
    for path in ("_ulysses_size", "_ring_size"):
        if run.get(path, 1) > 1:
            message = (
                f"{run.origins[path]} divides a video between GPUs to generate it; training so, where each GPU draws a video of"
                " its own, is not modelled; expected 1."
            )
            run.note("error", "not-modelled", message, at=path)
    run.check()


def _method(run: Draft, target: str) -> None:
    """All blocks are checkpointed (WanModel and CogVideoX always, HunyuanVideo only with LoRA), Wan's with inputs on the host."""
    block = next((key for key in ("flow.params.lora_config", "model.params.adapter_config") if _at(run.document, key)), None)
    kind = str(run.get("_adapter", "peft.LoraConfig"))
    run.put("train.method", "lora" if block else "full", like="_adapter")
    if block is None:
        run.drop("train.lora")
    elif not kind.endswith(".LoraConfig"):
        run.note(
            "error", "not-modelled", f"{block}.target is {kind}, which is not modelled; expected peft.LoraConfig.", at="_adapter"
        )
    elif "train.lora.targets" not in run.settled:
        message = f"{block}.params.target_modules is missing, and peft knows none for this network by itself."
        run.findings.append(run.document.finding("missing-key", "error", message, key=block))
    run.check()
    wan, hunyuan = target.startswith("videotuna.flow.wan"), "HunyuanVideo" in target
    run.put("train.checkpointing", block is not None or not hunyuan)
    if wan:
        run.put("offload.activations", "saved")  # modules/model.py: forward(grad_offload=True) under save_on_cpu
    run.put("train.zero_grad", "before-backward")  # Lightning drops gradients between a step's forward and its backward pass
    run.put("train.optimizer.name", "adamw")


def _at(document: Document, key: str) -> Any:
    place: Any = document.data
    for part in key.split("."):
        place = place.get(part) if isinstance(place, Mapping) else None
    return place


def _parallel(run: Draft, top: str) -> None:
    nodes = run.get("parallel.nodes")
    if "_devices" in run.settled:
        run.put("parallel.gpus", nodes * run.get("_devices"), like="_devices")
    run.assume("parallel.gpus", nodes, "--devices decides, which no config says, and the launch scripts take one GPU; pass"
               f" --set {prefer(f'{TRAINER}.devices', run.document)}=N")  # fmt: skip
    said = run.get("_strategy", {"stage": 0})
    if said["stage"] == 0:
        run.put("parallel.strategy", "ddp" if run.get("parallel.gpus") > 1 else "none", like="_strategy")
        return
    run.put("parallel.strategy", f"zero{said['stage']}", like="_strategy")
    run.put("offload.optimizer", said["optimizer"], like="_strategy")
    run.put("offload.parameters", said["parameters"] and said["stage"] == 3, like="_strategy")
    for name in [name for name in said if name.startswith("zero.")]:
        run.put(f"parallel.{name}", said[name], like="_strategy")
    if top == "flow" and not said["optimizer"]:
        message = (
            f"{run.origins['_strategy']}: train_new.py gives DeepSpeed its Adam for CPUs (base/generation_base.py), which stops at"
            " parameters on a GPU."
        )
        run.note("error", "cpu-adam", message, at="_strategy", fix="deepspeed_stage_3_offload, or ddp")
    run.check()


def _precision(run: Draft, top: str) -> None:
    """DeepSpeed casts the whole module; Lightning's own strategies leave it as loaded, float32, and run it under autocast.

    train_new.py fits under torch.cuda.amp.autocast(), whose dtype is float16, whenever the strategy is DeepSpeed's.
    """
    said, word = run.get("_strategy", {"stage": 0}), str(run.get("_precision"))
    kind, mixed = word.split("-", maxsplit=1)[0], word.endswith("mixed")
    dtype = {"16": "fp16", "bf16": "bf16"}.get(kind)
    engine = said["stage"] > 0
    if engine and ("fp16" in said or "bf16" in said):  # fabric/strategies/deepspeed.py: a config's own words win
        dtype = "bf16" if said.get("bf16") else "fp16" if said.get("fp16") else dtype if f"{dtype}" not in said else None
    like = "_precision"
    whole_ = engine or not mixed
    weights = run.get("_load", "fp32") if dtype is None or not whole_ else dtype
    run.put("precision.weights", weights, like="_load" if weights == run.get("_load") else like)
    run.put("precision.master", "fp32" if engine and dtype else None, like=like)
    if weights != "fp32" and str(run.get("model.name")).startswith("wan2.1-t2v"):
        run.put("precision.loaded", "fp32", like=like)  # wan/text2video.py, load_weight: on the GPU before DeepSpeed casts it
    autocast = "fp16" if engine and top == "flow" else None if engine or not mixed else dtype
    run.put("precision.autocast", autocast, like=like)
    run.put("precision.attention", autocast, like=like)
    if dtype is not None and whole_:
        run.put("precision.text_encoder", dtype, like=like)
        run.put("precision.vae", dtype, like=like)
    else:
        run.put("precision.vae", "fp32")
        if top == "model":
            run.assume("precision.text_encoder", "fp32", "modules/encoders/condition.py: T5EncoderModel.from_pretrained")
    if run.get("train.method") == "lora":  # peft makes adapters float32; DeepSpeed casts them with the rest
        run.put("train.lora.dtype", dtype if dtype is not None and whole_ else "fp32", like=like)
    if weights in ("fp16", "bf16") and not engine and not mixed and dtype is None:
        message = (
            f"{run.origins['_load']} makes the network {weights}, and precision 32 feeds it float32 latents, at which torch stops;"
            " expected precision 16-mixed, or no load_dtype."
        )
        run.note("warning", "mixed-dtypes", message, at="_load")


def _size(run: Draft) -> None:
    """A data set's own key for frames: what it is given under another's name it does not read."""
    folder = str(run.get("_dataset")).endswith("VideoDataset")
    source, (height, width, usual) = list(SIZES.items())[folder]
    run.assume("data.height", height, f"videotuna/data/{source}")
    run.assume("data.width", width, f"videotuna/data/{source}")
    mine, other = ("_max_num_frames", "_num_frames") if folder else ("_num_frames", "_max_num_frames")
    run.assume(mine, usual, f"videotuna/data/{source}")
    name, above = mine.removeprefix("_"), prefer(DATA, run.document)
    unread = [key for key in (other.removeprefix("_"), "video_length", "resolution") if _at(run.document, f"{above}.{key}")]
    for key in unread:
        taken = f"height {run.get('data.height')} and width {run.get('data.width')}" if key == "resolution" else (
            f"{name} {run.get(mine)}")  # fmt: skip
        meant = "height and width" if key == "resolution" else name
        message = f"{above}.{key} is not read by {source.split()[1]}, so {taken} is what the run has."
        fix = f"rename {above}.{key} to {meant}" if key != "resolution" else f"say it as {meant}"
        run.findings.append(run.document.finding("unknown-key", "warning", message, key=f"{above}.{key}", fix=fix))
    frames = int(run.get(mine))
    kept = (frames - 1) // 4 * 4 + 1
    run.put("data.frames", kept, like=mine)
    if kept != frames:
        message = f"{frames} frames make {(kept + 3) // 4} latent frames, as {kept} do, and are counted as those."
        run.note("note", "frames-rounded", message, at="data.frames")
    wan = str(run.get("model.name")).startswith("wan")
    run.put("data.latents", "offloaded" if wan else "online")  # wan/text2video.py: training_step(model_offload=True)
    run.put("data.text", "offloaded" if wan else "online")
    # Lightning's loop holds the batch on the GPU to the end of its step, cast by the plugins of true half precision and DeepSpeed
    kind, _, how = str(run.get("_precision")).partition("-")
    engine = run.get("_strategy", {"stage": 0})["stage"] > 0
    dtype = {"16": "fp16", "bf16": "bf16"}.get(kind) if engine or how != "mixed" else None
    run.put(f"data.pixels_kept.{dtype or 'fp32'}", 3)


def _phases(run: Draft, top: str, target: str) -> None:
    """Only CogVideoX draws samples (log_images): 49 frames of 480 by 720, one a prompt of the batch, whatever is trained."""
    every = run.get("_images")
    if top == "model" and "CogVideoX" in target and every > 0:
        run.put("sample.every", every, like="_images")
        for name, value in (("height", 480), ("width", 720), ("frames", 49), ("steps", 50)):
            run.put(f"sample.{name}", value, like="_images")
        run.put("sample.batch", run.get("train.batch"), like="train.batch")
    if "_weights_only" in run.settled:
        run.put("save.optimizer", not run.get("_weights_only"), like="_weights_only")
    run.assume("save.keep", 1, "Lightning: ModelCheckpoint(save_top_k=1)")


def _inverse(run: Draft, changes: dict[str, Any]) -> dict[str, Any]:
    frames = "_max_num_frames" if str(run.get("_dataset")).endswith("VideoDataset") else "_num_frames"
    if "data.frames" in changes:
        changes[frames] = changes["data.frames"]
    if "parallel.gpus" in changes and "hardware.gpus" not in run.origins.values():
        changes["_devices"] = max(1, changes.pop("parallel.gpus") // run.get("parallel.nodes"))
    moved = {"offload.optimizer": "optimizer", "offload.parameters": "parameters"}
    said = run.get("_strategy", {"stage": 0})
    if said["stage"] and moved.keys() & changes.keys():
        changes["_strategy"] = {**said, **{name: changes[path] for path, name in moved.items() if path in changes}}
        if said["stage"] == 3:  # Lightning has no name for one of the two alone
            changes["_strategy"] |= {"optimizer": True, "parameters": True}
    return changes


ADAPTER = Adapter(name="videotuna", matches=matches, read=read, tables=(TABLE,))
