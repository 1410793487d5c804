"""SimpleTuner's LyCORIS adapters: the JSON that `lycoris_config` names, which says their kind, their size and their layers.

helpers/training/trainer.py: init_trainable_peft_adapter of github.com/bghira/SimpleTuner (commit bc8e6ab), and create_lycoris of
lycoris/wrapper.py in github.com/KohakuBlueleaf/LyCORIS (commit 057df54).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from preflight.adapters import block_layers
from preflight.adapters.conversions import show
from preflight.adapters.draft import Draft
from preflight.finding import Severity

NAME = "lycoris_config"
#: Algorithms whose adapters are those of LoRA on linear layers, and Kronecker products.
PLAIN, KRONECKER = ("lora", "locon"), "lokr"
#: modules/lokr.py: with full_matrix the larger of the two matrices is whole, as of a rank that no layer's width reaches.
WHOLE = 65_536
#: simpletuner/examples/lycoris_config.json, with the smaller of its two factors for both of its classes.
EXAMPLE: Mapping[str, Any] = {
    "algo": "lokr",
    "full_matrix": True,
    "linear_alpha": 1,
    "factor": 8,
    "apply_preset": {"target_module": ["Attention", "FeedForward"]},
}
FEED = ("ff", "ffn", "ff_context", "audio_ff", "feed_forward", "img_mlp", "txt_mlp")


def settle(run: Draft) -> None:
    """Puts train.lora.* into `run`. Raises ConfigError for a kind of adapter that is not modelled."""
    run.drop("train.lora")
    told = run.document.data.get(NAME, run.get("_lycoris", "config/lycoris_config.json"))
    at = "_lycoris" if "_lycoris" in run.origins else "_lora_type"
    if not isinstance(told, Mapping):
        message = (
            f"{told} is not there, which says the kind and the size of the LyCORIS adapter; that of SimpleTuner's own example"
            " is counted, LoKr with a factor of 8."
        )
        run.note("warning", "file-not-read", message, at=at, fix="give lycoris_config as a path from the config's folder")
        told = EXAMPLE
    kinds = {str(part.get("algo", told.get("algo") or "lora")).lower() for part in ({}, *_parts(told))}
    for kind in sorted(kinds - {*PLAIN, KRONECKER}) or (["both lora and lokr"] if kinds > {KRONECKER} else []):
        message = f'{NAME}.algo is "{kind}": of LyCORIS\' adapters lora alone and lokr alone are modelled.'
        _say(run, "error", "not-modelled", message, "algo", fix="lora_type: standard")
    run.check()
    whole = kinds == {KRONECKER} and bool(told.get("full_matrix"))
    if kinds == {KRONECKER}:
        _kronecker(run, told)
    rank = _whole(run, told, "linear_dim", 4, low=1)
    _put(run, "rank", WHOLE if whole else rank, "full_matrix" if whole else "linear_dim")
    run.put("train.lora.alpha", _number(told.get("linear_alpha"), 1.0))
    dropout = _number(told.get("dropout"), 0.0)
    run.put("train.lora.dropout", dropout if dropout <= 1 else 0.0)
    run.put("train.lora.targets", _layers(run, told), like=at)
    if told.get("dora_wd"):
        _say(run, "warning", "dora", "DoRA's magnitudes and its norm of each weight are not counted.", "dora_wd")


def _kronecker(run: Draft, told: Mapping[str, Any]) -> None:
    """How each side of a layer is split, and what is said of that."""
    factors = {_whole(run, part, "factor", -1, low=-1) for part in ({**told, **part} for part in _parts(told) or ({},))}
    factor = min((each for each in factors if each > 0), default=-1)
    _put(run, "factor", factor, "factor")
    if len(factors) > 1:
        message = f"{NAME} gives classes of modules factors of their own; {factor} is counted for all, whose adapters are largest."
        _say(run, "note", "lycoris-targets", message, "apply_preset.module_algo_map")
    quantized = run.get("precision.quantization") != "no_change"
    if told.get("bypass_mode") is False and not quantized:
        message = "bypass_mode is false, so LyCORIS makes each layer's changed weight whole as it runs, which is not counted."
        _say(run, "warning", "lycoris-weights", message, "bypass_mode", fix="set bypass_mode to true")


def _parts(told: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What module_algo_map says of each class of modules that is wrapped."""
    preset = told.get("apply_preset")
    classes = preset.get("module_algo_map") if isinstance(preset, Mapping) else None
    wrapped = _classes(told)
    named = classes.items() if isinstance(classes, Mapping) else ()
    return [part for name, part in named if isinstance(part, Mapping) and (not wrapped or str(name) in wrapped)]


def _classes(told: Mapping[str, Any]) -> list[str]:
    preset = told.get("apply_preset")
    names = preset.get("target_module") if isinstance(preset, Mapping) else None
    return sorted({str(name) for name in names}) if isinstance(names, list) else []


def _layers(run: Draft, told: Mapping[str, Any]) -> list[str]:
    """The layers inside the classes that `apply_preset.target_module` names; without it LyCORIS wraps every linear layer."""
    layers, classes = block_layers.layers(str(run.get("model.name"))), _classes(told)
    chosen = [layer for name in classes for layer in _inside(name, layers)]
    if chosen and all(any(True for _ in _inside(name, layers)) for name in classes):
        return list(dict.fromkeys(chosen))
    where = f"where {', '.join(classes)} are" if classes else "and those outside of the blocks are not, which LyCORIS wraps as well"
    message = f"every linear layer of the blocks is counted as adapted, {where}."
    _say(run, "warning", "lycoris-targets", message, "apply_preset.target_module")
    return layers or list(block_layers.ATTENTION)


def _inside(name: str, layers: list[str]) -> Iterator[str]:
    """Those of `layers` that a module of the class `name` holds, by how diffusers calls its classes."""
    if name.endswith("ParallelSelfAttention"):  # FLUX.2's single blocks
        yield from (layer for layer in layers if layer in ("attn.to_qkv_mlp_proj", "attn.to_out"))
    elif name.endswith("Attention"):
        yield from (layer for layer in layers if layer.split(".", 1)[-1].startswith(("to_", "add_")) and "mlp" not in layer)
    elif name.endswith("FeedForward"):
        yield from (layer for layer in layers if layer.split(".")[0] in FEED)


def _whole(run: Draft, told: Mapping[str, Any], key: str, usual: int, *, low: int) -> int:
    value = told.get(key)
    if value is None:
        return usual
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= WHOLE:
        message = f"{NAME}.{key} is {show(value)}; expected a whole number from {low} to {WHOLE:,}."
        _say(run, "error", "invalid-value", message, key)
        run.check()
    return int(value)


def _number(value: Any, usual: float) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1e6 else usual


def _put(run: Draft, name: str, value: int, key: str) -> None:
    run.put(f"train.lora.{name}", value)
    run.origins[f"train.lora.{name}"] = f"{NAME}.{key}"


def _say(run: Draft, severity: Severity, id: str, message: str, key: str, fix: str | None = None) -> None:  # noqa: A002
    run.findings.append(run.document.finding(id, severity, message, key=f"{NAME}.{key}", fix=fix))
