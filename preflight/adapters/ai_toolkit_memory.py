"""What of an ai-toolkit run is where, and how large: weights, the data set that is the peak, components, sampling."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

from preflight.adapters.ai_toolkit_models import ARCHS, FLAGS, Arch, bucket
from preflight.adapters.ai_toolkit_values import QUANTIZATIONS
from preflight.adapters.draft import Draft

PROCESS = "config.process[0]"


def weights(run: Draft, arch: Arch) -> None:
    """Quantisation of the network and of the text encoders, layers on the host, and where the idle expert is."""
    if "precision.weights" not in run.origins:
        message = "train.dtype is missing, and ai-toolkit then loads every weight in float32."
        key, fix = f"{PROCESS}.train", "set train.dtype to bf16"
        run.findings.append(run.document.finding("float32-weights", "warning", message, key=key, fix=fix))
    away = run.get("_layers")
    if away and not arch.layers:
        message = f"{run.origins['_layers']} has no effect: this architecture's load_model does not know it."
        run.note("warning", "unread-offload", message, at="_layers")
        away = False
    recovered = bool(run.get("_ara")) or "_ara_path" in run.origins
    if run.get("_quantize"):
        _quantization(run, arch, away=bool(away), recovered=recovered)
    chosen = "_qtype_te" if arch.own_text else "_qtype"
    if run.get("_quantize_te", run.get("_quantize")):
        name = _named(run.get(chosen), away=bool(away))
        run.put("precision.text_encoder_quantization", name, like="_quantize_te" if "_quantize_te" in run.origins else "_quantize")
        if not arch.own_text and "_qtype_te" in run.origins and run.get("_qtype_te") != run.get("_qtype"):
            message = (
                f'{run.origins["_qtype_te"]} is not read for this architecture: its text encoder gets qtype, "{run.get("_qtype")}".'
            )
            run.note("note", "unread-qtype", message, at="_qtype_te")
    if away:
        run.put("offload.layers", _share(run.get("_share")), like="_layers")
        run.put("offload.text_layers", _share(run.get("_text_share")), like="_layers")
    if arch.experts:
        run.put("model.experts", "swapped" if run.get("_low_vram") else "both", like="_low_vram")


def _share(value: float) -> bool | float:
    return value if 0 < value < 1 else bool(value)


def _named(word: str, *, away: bool) -> str:
    """ModelConfig makes qfloat8 float8 where layers are offloaded; a word that is not known is left for the refusal."""
    return QUANTIZATIONS.get("float8" if away and word == "qfloat8" else word, word)


def _quantization(run: Draft, arch: Arch, *, away: bool, recovered: bool) -> None:
    word = run.get("_qtype")
    name = _named(word, away=away)
    if name == "none":
        run.note(
            "warning", "unquantized", f'"{word}" leaves every layer as it is: ai-toolkit\'s backend never takes it.', at="_qtype"
        )
    elif arch.blocks or recovered:
        name = f"{name}-blocks"
    at = "_qtype" if "_qtype" in run.origins else "_quantize"
    run.put("precision.quantization", name, like=at)
    on_gpu = arch.quantizes == "always" or (arch.quantizes == "unless-low-vram" and not run.get("_low_vram"))
    if on_gpu and name != "none" and not recovered:
        run.put("precision.quantized_on", "gpu", like="_low_vram")
    if recovered:
        message = "the accuracy recovery adapter is taken to cover the blocks; its own weights, of unknown size, are not counted."
        run.note("note", "recovery-adapter", message, at="_qtype" if run.get("_ara") else "_ara_path")


def data(run: Draft, arch: Arch) -> None:
    """The data set whose buckets are the peak: pixels x latent frames x batch; each may have its own of all three."""
    worst = _worst(run)
    step = 4 if "wan" in run.get("model.name") else 8
    resolution, frames, batch, index = worst
    for path, value, name in (("_resolution", resolution, "resolution"), ("data.frames", frames, "num_frames")):
        run.settled[path] = value
        voice = next((v for v in run.said.get(path, []) if f"datasets[{index}].{name}" in v.key), None)
        if voice is not None:
            run.origins[path] = voice.key
            run.assumed.pop(path, None)
    own = next((v for v in run.said.get("_own_batch", []) if f"datasets[{index}]." in v.key), None)
    run.put("train.batch", batch, like=None if own else "_batch")
    if own:
        run.origins["train.batch"] = own.key
    width, height = bucket(resolution, arch.step)
    run.put("data.width", width, like="_resolution")
    run.put("data.height", height, like="_resolution")
    run.put("data.pixel_step", arch.step)
    counted = max(1, (frames - 1) // step * step + 1)
    if counted != frames:
        message = f"of {frames} frames the VAE encodes {counted}: it takes {step} more at a time."
        run.note("note", "frames-cut", message, at="data.frames")
        run.settled["data.frames"] = counted
    if run.get("_any_length"):
        message = f"auto_frame_count takes each clip whole, so the longest decides; num_frames, {counted}, is what is counted."
        run.note("warning", "frames-not-in-config", message, at="_any_length")
    references = _references(run)
    if references > 1 and "edit" in run.get("model.name"):
        run.put("model.dims.references", references)


def _sets(run: Draft) -> list[Mapping[str, Any]]:
    """The data sets, of which a config may have none."""
    found = run.document.data["config"]["process"][0].get("datasets")
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


def _worst(run: Draft) -> tuple[int, int, int, int]:
    """Resolution, frames, batch and number of the largest data set."""
    said = {path: {v.key: v.value for v in run.said.get(path, [])} for path in ("_resolution", "data.frames", "_own_batch")}

    def value(path: str, index: int, name: str, default: int) -> int:
        return int(said[path].get(f"{PROCESS}.datasets[{index}].{name}", default))

    found = [
        (
            value("_resolution", i, "resolution", 512),
            value("data.frames", i, "num_frames", 1),
            value("_own_batch", i, "batch_size", run.get("_batch")),
            i,
        )
        for i in range(max(1, len(_sets(run))))
    ]
    return max(found, key=lambda s: s[0] ** 2 * ((s[1] - 1) // 4 + 1) * s[2])


def _references(run: Draft) -> int:
    """Control images of a sample, in the data set that has most."""

    def of(item: Mapping[str, Any]) -> int:
        paths = item.get("control_path")
        numbered = sum(bool(item.get(f"control_path_{n}")) for n in (1, 2, 3))
        return numbered or (len(paths) if isinstance(paths, list) else int(bool(paths)))

    return max((of(item) for item in _sets(run)), default=0)


def resident(run: Draft, arch: Arch) -> None:
    """sd_device_states_presets.py: the VAE stays unless all latents are cached, the text encoder unless it is unloaded."""
    sets = _sets(run)
    cached = bool(sets) and all((s.get("cache_latents") or s.get("cache_latents_to_disk")) and not _augmented(s) for s in sets)
    run.put("data.latents", "cached" if cached and not arch.encodes else "online", like="_on_disk")
    if not cached:  # jobs/process/BaseSDTrainProcess.py: imgs = imgs.to(self.device_torch, dtype=dtype), which the step is handed
        run.put(f"data.pixels_kept.{run.get('precision.autocast') or run.get('precision.weights')}", 3)
    if cached and arch.encodes:
        run.note(
            "note",
            "vae-stays",
            "the VAE stays on the GPU, because the first frame of each clip is encoded in every step.",
            at="_arch",
        )
    at = "_cache_text" if "_cache_text" in run.origins or "_each_caches_text" not in run.origins else "_each_caches_text"
    if run.get("_cache_text") or run.get("_each_caches_text"):
        run.put("data.text", "cached", like=at)
    else:
        run.put("data.text", "offloaded" if run.get("_unload") else "online", like="_unload")
    run.put("data.text_loading", arch.text[bool(run.get("_low_vram"))], like="_low_vram")
    if "precision.text_encoder_quantization" in run.settled and not arch.text_on_host:
        run.put("precision.text_encoder_quantized_on", "gpu")
    run.put("precision.text_encoder", run.get("_text_dtype", run.get("precision.weights")), like="precision.weights")
    run.put("precision.vae", run.get("_vae_dtype", run.get("precision.weights")), like="precision.weights")


def _augmented(item: Mapping[str, Any]) -> bool:
    return bool(item.get("augments") or item.get("augmentations"))


def phases(run: Draft, arch: Arch) -> None:
    """Sampling before the first step, every so many, and at the end; generate_images brings everything to the GPU for it."""
    sample = run.document.data["config"]["process"][0].get("sample")
    block = sample if isinstance(sample, Mapping) else {}
    if run.get("_no_samples") or not (block.get("prompts") or block.get("samples")):
        run.drop("sample")
    else:
        step = 4 if "wan" in run.get("model.name") else 8
        for path in ("sample.width", "sample.height"):
            run.settled[path] = max(arch.step, run.get(path) // arch.step * arch.step)
        frames = run.get("sample.frames")  # diffusers' pipelines take up to the next latent frame, ai-toolkit's own of Wan 2.2 down
        run.settled["sample.frames"] = max(1, (frames - int(arch.blocks or frames % step == 1)) // step * step + 1)
        run.put("sample.final", True)
        guided = arch.guided and not run.get("_flux_cfg")
        run.put("sample.guidance", run.get("_guidance") > 1 and not guided, like="_guidance")
        run.put("sample.text", run.get("data.text") == "offloaded", like="_unload")
        low = bool(run.get("_low_vram"))
        run.put("sample.offload", low and arch.unloads, like="_low_vram")
        run.put("sample.tiling", (low and arch.tiles) or bool(run.get("_tiling")), like="_low_vram")
    run.put("save.final", True)
    run.put("save.optimizer", True)  # optimizer.pt beside the weights
    run.put("schedule.steps", run.get("_steps"), like="_steps")
    if run.get("parallel.gpus", 1) > 1:
        run.put("parallel.strategy", "ddp", like="parallel.gpus")


def inverse(run: Draft, changes: dict[str, Any]) -> dict[str, Any]:
    """Canonical changes in the terms of the table."""
    sides = [changes.pop(path, None) for path in ("data.width", "data.height")]
    if any(sides):
        width, height = (side or run.get(path) for side, path in zip(sides, ("data.width", "data.height"), strict=True))
        step = _arch(run).step
        likely = (width, isqrt(width * height), isqrt(width * height) + 1)
        found = next((side for side in likely if bucket(side, step) == (width, height)), None)
        if found is not None:
            changes["_resolution"] = found
    rank = changes.pop("train.lora.rank", None)
    if rank is not None and "train.lora.factor" not in run.settled:
        changes["_rank"] = rank
    if "train.batch" in changes:
        own = run.origins.get("train.batch", "").endswith("]." + "batch_size") and "datasets[" in run.origins["train.batch"]
        changes["_own_batch" if own else "_batch"] = changes.pop("train.batch")
    if "data.text" in changes:
        text = changes.pop("data.text")
        if text != "online":
            changes["_cache_text" if text == "cached" else "_unload"] = True
    if changes.pop("data.latents", None) == "cached":
        changes["_on_disk"] = True
    kind, away = changes.pop("precision.quantization", None), changes.pop("precision.quantized_on", None)
    if str(kind).removesuffix("-blocks") == "fp8-quanto" and not run.get("_quantize"):  # what model.quantize is by itself
        changes["_quantize"] = True
        away = "host" if _arch(run).quantizes == "unless-low-vram" else None
    if away == "host":
        changes["_low_vram"] = True
    if changes.pop("offload.layers", None) is True:
        changes["_layers"] = True
    return changes


def _arch(run: Draft) -> Arch:
    word = run.get("_arch") or next((FLAGS[flag] for flag in FLAGS if run.get(f"_flag.{flag}")), "sd1")
    return ARCHS[word]
