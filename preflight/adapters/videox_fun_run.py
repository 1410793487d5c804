"""How VideoX-Fun's trainers run: which layers train, the largest clip, and where encoders are.

What holds is read in scripts/wan2.1_fun/train_lora.py and train.py, and videox_fun/utils/lora_utils.py, of
github.com/aigc-apps/VideoX-Fun, commit 804a425.
"""

from __future__ import annotations

from typing import Any

from preflight.adapters import conversions, launcher
from preflight.adapters.conversions import SIDE, Conversion, flag_text
from preflight.adapters.draft import Draft

#: Every linear layer of Wan, and one block's: LoRANetwork looks for parts of these names.
OUTSIDE = ("text_embedding.0", "text_embedding.2", "time_embedding.0", "time_embedding.2", "time_projection.1", "head.head")
BLOCK = (*(f"{name}.{part}" for name in ("self_attn", "cross_attn") for part in "qkvo"), "ffn.0", "ffn.2")
IMAGE_OUTSIDE, IMAGE_BLOCK = ("img_emb.proj.1", "img_emb.proj.3"), ("cross_attn.k_img", "cross_attn.v_img")
WITH_IMAGES = ("wan2.1-i2v", "wan2.1-fun")
FRAMES, MULTIPLE = 4, 16  # vae.config.temporal_compression_ratio; int(x / 16) * 16


def fixed() -> Conversion:
    """--fix_sample_size: height and width."""
    inner = flag_text(conversions.size("hw"))

    def read(value: Any) -> tuple[int, int]:
        width, height = inner.read([int(word) for word in value] if _are_numbers(value) else value)
        return height, width

    def write(value: tuple[int, int], _: Any) -> list[int]:
        return list(value)

    return Conversion(name="size height and width", read=read, write=write, schema=inner.schema)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) and word.isdigit() and int(word) <= SIDE for word in value)


def method(run: Draft) -> None:
    lora = "lora" in run.get("_trainer")
    run.put("train.method", "lora" if lora else "full")
    if run.get("_text_trains"):
        run.note("warning", "text-encoders-train", "adapters of the text encoder are not counted.", at="_text_trains")
    if lora:
        run.put("train.ema", False)
        run.put("train.lora.targets", _targets(run), like="_targets")
        if not run.get("_peft"):
            run.put("train.lora.code", "ai-toolkit")  # LoRAModule.forward scales and adds in the same order
        run.assumed.pop("train.ema", None)
        if not run.get("train.lora.alpha"):
            run.put("train.lora.alpha", run.get("train.lora.rank"))
        return
    run.drop("train.lora")
    chosen = (*run.get("_trainable", ()), *run.get("_slower", ()))
    if not chosen:
        message = "without --trainable_modules the trainer stops; expected parts of parameters' names, or . for all."
        _refuse(run, "nothing-trained", message, "_trainable")
    if "." not in chosen:
        message = f"training only the parameters with {', '.join(chosen)} in their names is not modelled; expected . for all."
        _refuse(run, "not-modelled", message, "_trainable")


def _refuse(run: Draft, id_: str, message: str, at: str) -> None:
    run.note("error", id_, message, at=at)
    run.check()


def _targets(run: Draft) -> list[str]:
    """peft takes names from their end; the trainer's own network looks for the words anywhere in a name."""
    wanted, skipped = run.get("_targets", ()), run.get("_skipped", ())
    if run.get("_peft"):
        if not wanted:
            _refuse(run, "missing-key", "--use_peft_lora needs --target_name, such as q,k,v,ffn.0,ffn.2.", "_peft")
        return list(wanted)
    images = run.get("model.name").startswith(WITH_IMAGES)
    names = {name: name for name in (*OUTSIDE, *(IMAGE_OUTSIDE if images else ()))}
    names.update({f"blocks.0.{name}": name for name in (*BLOCK, *(IMAGE_BLOCK if images else ()))})
    kept = [
        short
        for name, short in names.items()
        if not any(word in name for word in skipped) and (not wanted or any(word in name for word in wanted))
    ]
    if not kept:
        _refuse(run, "lora-target", f"no layer has {', '.join(wanted)} in its name.", "_targets")
    short = next((word for word in wanted if len(word) == 1 and word in "blocks"), None)
    if short is not None:
        message = f"without --use_peft_lora a layer is chosen by any part of its name, and {short} is in blocks: all of them are."
        run.note("warning", "loose-target", message, at="_targets", fix="add --use_peft_lora, or write self_attn.q, cross_attn.q")
    return kept


def _whole(side: int) -> int:
    return max(MULTIPLE, side // MULTIPLE * MULTIPLE)


def size(run: Draft) -> None:
    """The largest batch: clips, or pictures where those are larger. Frames come as 4n + 1, and a bucket has its square's area."""
    video, image, frames = run.get("_video"), run.get("_image"), run.get("_frames")
    choices = [(video, video, frames, "_video"), (image, image, 1, "_image")]
    fixed_size = "_fixed.height" in run.settled and run.get("_bucket")
    if fixed_size:
        choices = [(run.get("_fixed.height"), run.get("_fixed.width"), frames, "_fixed.height")]
    elif run.get("_bucket") and run.get("_adapts") and run.get("_by_tokens"):
        # get_length_to_frame_num: the tokens of n frames of token_sample_size, for sides between the two sizes
        sides = [*range(video, image, 128), image] if image > video else [image]
        tokens = frames * run.get("_token") ** 2
        choices = [(side, side, int(min(tokens / side**2, frames)) // FRAMES * FRAMES + 1, "_token") for side in sides]
    sized = [(_whole(h), _whole(w), (min(f, frames) - 1) // FRAMES * FRAMES + 1, like) for h, w, f, like in choices]
    height, width, length, like = max(sized, key=lambda each: each[0] * each[1] * ((each[2] - 1) // FRAMES + 1))
    for path, value in (("data.height", height), ("data.width", width)):
        run.put(path, value, like=like)
    run.put("data.frames", max(1, length), like="_frames" if length > 1 else like)
    if "_fixed.height" in run.settled and not fixed_size:
        message = "without --enable_bucket it changes nothing."
        run.note("warning", "one-side", f"--fix_sample_size is not read: {message}", at="_fixed.height", fix="add --enable_bucket")
    if run.get("_tiles"):
        message = "batches of small pictures and clips are repeated up to four times, to no more than a clip's tokens."
        run.note("note", "not-counted", message, at="_tiles")


def encoders(run: Draft) -> None:
    """The VAE and CLIP are on the GPU, or with --low_vram only while they encode; T5 as well, or in the loader on the host."""
    run.put("data.latents", "offloaded" if run.get("_low_vram") else "online", like="_low_vram")
    text = "cached" if run.get("_text_beside") else "offloaded" if run.get("_low_vram") else "online"
    run.put("data.text", text, like="_text_beside" if run.get("_text_beside") else "_low_vram")


#: Channels of a batch's pixels, by the mode: clips, with masked ones and their masks, or with control clips and camera rays.
PIXELS = {"normal": 3, "inpaint": 7, "i2v": 7, "ti2v": 7, "control": 6, "control_ref": 6, "control_camera_ref": 12}
MASKED = 4  # scripts/wan2.2_fun/train_control.py has those beside a reference picture


def _pixels(run: Draft, dtype: str) -> None:
    """wan2.1/train_lora.py: pixel_values = batch["pixel_values"].to(weight_dtype), after which neither is dropped.

    The batch is in float32 on the GPU, where accelerate's loader has put it and holds it as well.
    """
    mode = run.get("_mode")
    channels = PIXELS[mode] + (MASKED if mode.endswith("_ref") and run.get("model.name").startswith("wan2.2") else 0)
    for each in dict.fromkeys(("fp32", dtype)):
        run.put(f"data.pixels_kept.{each}", channels)


def launched(run: Draft, started: launcher.Launched) -> None:
    """The trainer's --mixed_precision, else accelerate's, is the dtype of all weights, and what the forward pass autocasts to."""
    told = {"bf16": "bf16", "fp16": "fp16"}.get(started.mixed_precision or "no", "fp32")
    dtype = run.get("_precision", told)
    like = "_precision" if "_precision" in run.settled else "_launcher.mixed_precision"
    for path in ("precision.weights", "precision.text_encoder", "precision.vae"):
        run.put(path, dtype, like=like)
    if run.get("train.method") == "lora":
        run.put("train.lora.dtype", dtype, like=like)
    _pixels(run, dtype)
    cast = None if dtype == "fp32" else dtype
    run.put("precision.autocast", cast)
    run.put("precision.attention", cast)
    if started.engine:
        run.put("precision.master", "fp32")
    if dtype == "fp32":
        message = "neither --mixed_precision nor accelerate names a precision, so the weights are in float32, twice as large."
        run.note("warning", "full-precision", message, fix="add --mixed_precision bf16")
    _optimizer(run)
    passes = started.accumulation
    if passes is not None and passes != run.get("train.accumulation"):
        message = f"accelerate's own gradient_accumulation_steps, {passes}, goes before it."
        if "train.accumulation" in run.origins:
            run.note("warning", "accumulation-ignored", message, at="train.accumulation")
        run.assumed.pop("train.accumulation", None)
        run.put("train.accumulation", passes)
    divided = run.get("parallel.strategy") in ("zero1", "zero2", "zero3", "fsdp")
    if divided and run.get("data.text") != "cached" and run.get("parallel.gpus", 1) > 1:
        message = "the trainer divides T5 between the GPUs (shard_model), and a whole one is counted on each."
        run.note("note", "not-counted", message, at="parallel.strategy")


def _optimizer(run: Draft) -> None:
    like = "_8bit" if run.get("_8bit") else "_came"
    name, bits = ("adamw8bit", 8) if run.get("_8bit") else ("came" if run.get("_came") else "adamw", 32)
    run.put("train.optimizer.name", name, like=like)
    run.put("train.optimizer.bits", bits, like=like)


def phases(run: Draft) -> None:
    """Checkpoints, and samples where there are prompts: of the size of clips, and of as many frames."""
    run.put("save.final", True)
    if run.get("parallel.strategy") in ("zero3", "fsdp"):
        run.put("save.optimizer", True)  # "Auto set save_state to True"
        run.assumed.pop("save.optimizer", None)
    if "_prompts" not in run.settled:
        return
    for path in ("every", "every_epochs"):
        run.put(f"sample.{path}", run.get(f"_sample.{path}"), like=f"_sample.{path}")
    run.put("sample.height", run.get("_video"), like="_video")
    run.put("sample.width", run.get("_video"), like="_video")
    run.put("sample.frames", run.get("_frames"), like="_frames")
    run.put("sample.text", run.get("data.text") == "offloaded")
    if run.get("_expert") in ("low", "high") or (run.get("_expert") is None and run.get("model.name").endswith("a14b")):
        message = "samples need the other expert as well, which is not counted."
        run.note("warning", "not-counted", message, at="_prompts")
