"""What a table cannot say of an ai-toolkit run: which network and parts of it, what is resident, and which data set is the peak."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt
from typing import Any

from preflight.adapters.ai_toolkit_models import ARCHS, ELSEWHERE, FLAGS, Arch, bucket
from preflight.adapters.ai_toolkit_values import QUANTIZATIONS
from preflight.adapters.block_layers import layers
from preflight.adapters.draft import Draft
from preflight.finding import ConfigError

PROCESS = "config.process[0]"
#: Keys of TrainConfig that run the network more than once before each backward pass.
TWO_PASSES = (
    "do_cfg",
    "do_random_cfg",
    "diff_output_preservation",
    "blank_prompt_preservation",
    "short_and_long_captions",
    "train_turbo",
)
LOSSES = ("pixelspace", "mean_flow")  # decodes, or differentiates twice
#: Where the repeated blocks of a network are, in the names that only_if_contains and ignore_if_contains look at.
CONTAINERS = (
    "transformer.blocks.0.",
    "transformer.transformer_blocks.0.",
    "transformer.single_transformer_blocks.0.",
    "transformer.layers.0.",
)
WHOLE = 65_536  # a rank above every layer's


def settle(run: Draft) -> None:
    """Everything after the table, in the order in which one thing follows from another."""
    arch = _model(run)
    _refusals(run)
    _method(run, arch)
    _weights(run, arch)
    _data(run, arch)
    _resident(run, arch)
    _phases(run, arch)
    _remarks(run)


def _model(run: Draft) -> Arch:
    if "_arch" in run.settled:
        word, said = run.get("_arch"), "_arch"
    else:
        said = next((f"_flag.{flag}" for flag in FLAGS if run.get(f"_flag.{flag}")), "")
        word = FLAGS[said.removeprefix("_flag.")] if said else "sd1"
        if not said:
            run.assume("_arch", "sd1", "ModelConfig: without arch and is_… it is Stable Diffusion 1")
    if word in ELSEWHERE:
        at = said if said in run.origins else "_path"
        run.note(
            "error", "not-modelled", f"Cannot judge: {ELSEWHERE[word]} ({run.origins[at]}: {word}) is not modelled yet.", at=at
        )
        run.check()
    arch = ARCHS[word]
    path = run.get("_path")
    if path is None:
        message = "model.name_or_path is missing, and ai-toolkit refuses a config without it."
        raise ConfigError(run.document.finding("missing-key", "error", message, key=f"{PROCESS}.model"))
    if isinstance(arch.network, str):
        run.put("model.name", arch.network, like=said or "_path")
    else:
        name, known = arch.network(path)
        run.put("model.name", name, like="_path")
        if not known:
            run.note(
                "warning", "model-assumed", f'"{path}" does not say which model of {word} it is; {name} is counted.', at="_path"
            )
    return arch


def _refusals(run: Draft) -> None:
    """What ai-toolkit raises ValueError for, and what it does that is not modelled."""
    said = run.get
    if said("train.accumulation") > 1 and said("_legacy_accumulation") != 1:
        _refused(run, "train.accumulation", "gradient_accumulation and gradient_accumulation_steps exclude each other")
    if said("_text_trains") and (said("_unload") or said("_cache_text")):
        _refused(run, "_text_trains", "a text encoder that is trained cannot be unloaded")
    if said("_unload") and said("_arch") == "qwen_image_edit":
        _refused(run, "_unload", "qwen_image_edit encodes its control images with the text; cache_text_embeddings is possible")
    if not said("_high") and not said("_low"):
        _refused(run, "_low", "one of train_high_noise and train_low_noise must be true")
    for key in TWO_PASSES:
        if said(f"_asks.{key}"):
            _beyond(run, f"_asks.{key}", "runs the network more than once before each backward pass")
    if said("_text_trains"):
        _beyond(run, "_text_trains", "trains the text encoder too")
    if not said("_network_trains"):
        _beyond(run, "_network_trains", "trains something else than the network")
    if said("_loss") in LOSSES:
        _beyond(run, "_loss", "is more than a difference to the target")
    if "_extractor" in run.origins:
        _beyond(run, "_extractor", "decodes and looks at each prediction with another network")
    if said("_split"):
        _beyond(run, "_split", "divides the network between GPUs")
    run.check()


def _refused(run: Draft, at: str, why: str) -> None:
    run.note("error", "trainer-refuses", f"ai-toolkit refuses {run.origins.get(at, PROCESS)} here: {why}.", at=at)


def _beyond(run: Draft, at: str, what: str) -> None:
    run.note("error", "not-modelled", f"Cannot judge: {run.origins.get(at, PROCESS)} {what}, which is not modelled yet.", at=at)


def _method(run: Draft, arch: Arch) -> None:
    """A `network` block makes it an adapter; force_to(…, dtype=torch.float32) keeps that in float32 whatever the rest is in."""
    if not isinstance(run.document.data["config"]["process"][0].get("network"), Mapping):
        run.put("train.method", "full")
        run.drop("train.lora")
        return
    run.put("train.method", "lora")
    run.put("train.lora.dtype", "fp32")
    kind = run.get("_kind")
    if kind not in ("lora", "lokr"):
        _beyond(run, "_kind", f'is "{kind}", a kind of adapter')
        run.check()
    run.put("train.lora.rank", run.get("_rank"), like="_rank")
    if kind == "lokr":
        run.put("train.lora.factor", run.get("_factor"), like="_kind")
        if run.get("_full_rank"):
            run.put("train.lora.rank", WHOLE, like="_kind")
    if arch.experts:
        run.put("train.lora.shared", not (run.get("_high") and run.get("_low")))
    run.put("train.lora.targets", _targets(run))


def _targets(run: Draft) -> list[str]:
    """Every linear layer in the repeated blocks, less what network_kwargs leave out (lora_special.py: create_modules)."""
    name, known = run.get("model.name"), layers(run.get("model.name"))
    if not known:
        message = f"Cannot judge: which layers of {name} ai-toolkit gives an adapter is not known here."
        run.note("error", "not-modelled", message, at="model.name")
        run.check()
    only, ignore = run.get("_only"), run.get("_ignore") or []
    kept = [layer for layer in known if only is None or any(_contains(layer, word) for word in only)]
    kept = [layer for layer in kept if not any(_contains(layer, word) for word in ignore)]
    if not kept:
        run.note(
            "error", "lora-target", f"No layer of {name} is left for an adapter.", at="_only" if only is not None else "_ignore"
        )
        run.check()
    for path in ("_only", "_ignore"):
        if any(re.search(r"\.\d+(\.|$)", word) for word in run.get(path) or ()):
            message = f"{run.origins[path]} picks single blocks; the layers that it names are counted in every block."
            run.note("warning", "single-blocks", message, at=path)
    return kept


def _contains(layer: str, word: str) -> bool:
    """Whether a module's name may contain `word`, with $$ or _ for the dots; which block it is in does not matter."""
    pattern = re.sub(r"\d+", r"\\d+", re.escape(word.replace("$$", ".")))
    return any(re.search(pattern, name) for full in CONTAINERS for name in (full + layer, (full + layer).replace(".", "_")))


def _weights(run: Draft, arch: Arch) -> None:
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
        message = "the accuracy recovery adapter is taken to cover the blocks; its own weights, whose size no config says, are not counted."
        run.note("note", "recovery-adapter", message, at="_qtype" if run.get("_ara") else "_ara_path")


def _data(run: Draft, arch: Arch) -> None:
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
    counted = max(1, (frames - 1) // step * step + 1)
    if counted != frames:
        message = f"of {frames} frames the VAE encodes {counted}: it takes {step} more at a time."
        run.note("note", "frames-cut", message, at="data.frames")
        run.settled["data.frames"] = counted
    if run.get("_any_length"):
        message = f"auto_frame_count takes each clip whole, so the longest decides; {counted} frames are counted, give more by num_frames."
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


def _resident(run: Draft, arch: Arch) -> None:
    """sd_device_states_presets.py: the VAE stays unless all latents are cached, the text encoder unless it is unloaded."""
    sets = _sets(run)
    cached = bool(sets) and all((s.get("cache_latents") or s.get("cache_latents_to_disk")) and not _augmented(s) for s in sets)
    run.put("data.latents", "cached" if cached and not arch.encodes else "online", like="_on_disk")
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
    run.put("precision.text_encoder", run.get("_text_dtype", run.get("precision.weights")), like="precision.weights")
    run.put("precision.vae", run.get("_vae_dtype", run.get("precision.weights")), like="precision.weights")


def _augmented(item: Mapping[str, Any]) -> bool:
    return bool(item.get("augments") or item.get("augmentations"))


def _phases(run: Draft, arch: Arch) -> None:
    """Sampling before the first step, every so many, and at the end; generate_images brings everything to the GPU for it."""
    sample = run.document.data["config"]["process"][0].get("sample")
    block = sample if isinstance(sample, Mapping) else {}
    if run.get("_no_samples") or not (block.get("prompts") or block.get("samples")):
        run.drop("sample")
    else:
        step = 4 if "wan" in run.get("model.name") else 8
        for path in ("sample.width", "sample.height"):
            run.settled[path] = max(arch.step, run.get(path) // arch.step * arch.step)
        run.settled["sample.frames"] = max(1, (run.get("sample.frames") - 1) // step * step + 1)
        run.put("sample.final", True)
        run.put("sample.guidance", run.get("_guidance") > 1, like="_guidance")
        run.put("sample.text", run.get("data.text") == "offloaded", like="_unload")
        low = bool(run.get("_low_vram"))
        run.put("sample.offload", low and arch.unloads, like="_low_vram")
        run.put("sample.tiling", (low and arch.tiles) or bool(run.get("_tiling")), like="_low_vram")
    run.put("save.final", True)
    run.put("save.optimizer", True)  # optimizer.pt beside the weights
    run.put("schedule.steps", run.get("_steps"), like="_steps")
    if run.get("parallel.gpus", 1) > 1:
        run.put("parallel.strategy", "ddp", like="parallel.gpus")


def _remarks(run: Draft) -> None:
    if run.get("_legacy_accumulation") != 1:
        message = (
            f"{run.origins['_legacy_accumulation']} gathers nothing: hook_train_loop drops the gradients at the start of every step;"
            " gradient_accumulation is the key that does."
        )
        run.note("warning", "accumulation-lost", message, at="_legacy_accumulation", fix="rename it to gradient_accumulation")
    if run.get("_swapping"):
        message = (
            "do_paramiter_swapping trains a part of the weights at a time; all their gradients are counted, which is too much."
        )
        run.note("warning", "swapped-parameters", message, at="_swapping")
    if run.get("_compile"):
        run.note(
            "warning", "compiled", "torch.compile changes what a step keeps; the network as written is counted.", at="_compile"
        )
    if run.get("_conv") and run.get("model.name") in ("sdxl", "sd1.5") and run.get("train.method") == "lora":
        run.note("warning", "convolutions", "adapters on convolutions are not counted, only those on linear layers.", at="_conv")


def inverse(run: Draft, changes: dict[str, Any]) -> dict[str, Any]:
    """Canonical changes in the terms of the table."""
    size = {path: changes.pop(path) for path in ("data.width", "data.height") if path in changes}
    if size:
        width, height = (size.get(f"data.{axis}", run.get(f"data.{axis}")) for axis in ("width", "height"))
        step = _step(run)
        sides = (width, isqrt(width * height), isqrt(width * height) + 1)
        found = next((side for side in sides if bucket(side, step) == (width, height)), None)
        if found is not None:
            changes["_resolution"] = found
    if "train.batch" in changes:
        own = run.origins.get("train.batch", "").endswith("]." + "batch_size") and "datasets[" in run.origins["train.batch"]
        changes["_own_batch" if own else "_batch"] = changes.pop("train.batch")
    if "data.text" in changes:
        text = changes.pop("data.text")
        if text != "online":
            changes["_cache_text" if text == "cached" else "_unload"] = True
    if changes.pop("data.latents", None) == "cached":
        changes["_on_disk"] = True
    if changes.pop("offload.layers", None) is True:
        changes["_layers"] = True
    return changes


def _step(run: Draft) -> int:
    word = run.get("_arch") or next((FLAGS[flag] for flag in FLAGS if run.get(f"_flag.{flag}")), "sd1")
    return ARCHS[word].step
