"""SimpleTuner's network: which one the config names, what of it trains, and in which dtypes.

helpers/training/trainer.py, helpers/models/common.py and helpers/configuration/cmd_args.py of github.com/bghira/SimpleTuner.
"""

from __future__ import annotations

from typing import Any

from preflight import catalog
from preflight.adapters import simpletuner_lycoris
from preflight.adapters.draft import Draft
from preflight.adapters.simpletuner_models import ATTENTION, FAMILIES, FLUX_TARGETS, FUSED, OTHERS, RENAMED, Family
from preflight.finding import ConfigError, did_you_mean

#: quantisation/__init__.py: _quanto_model leaves these families' feed-forward layers, norms and embeddings unquantised.
PARTLY_QUANTO = ("sd3", "ltxvideo", "wan", "wan_s2v", "infinitetalk")


def family(run: Draft) -> Family:
    """The family that the config names, which `settle` has found to be one that is modelled."""
    word = str(run.get("_family")).lower()
    return FAMILIES[RENAMED.get(word, word)]


def settle(run: Draft) -> None:
    """Puts model.*, train.lora.*, train.method and precision.* into `run`. Raises ConfigError where that is not known."""
    _name(run)
    _method(run)
    _precision(run)
    _unmodelled(run)


def _name(run: Draft) -> None:
    if "_family" not in run.settled:
        run.findings.append(
            run.document.finding("missing-key", "error", "model_family is missing; SimpleTuner needs it.", key="model_family")
        )
        run.check()
    word = str(run.get("_family")).lower()
    word = RENAMED.get(word, word)
    if word in OTHERS:
        message = f'{run.origins["_family"]} is "{run.get("_family")}": the network of {OTHERS[word]} is not modelled yet.'
        _stop(run, "not-modelled", message, "_family")
    if word not in FAMILIES:
        guess = did_you_mean(word, (*FAMILIES, *OTHERS))
        hint = f"did you mean {guess}?" if guess else f"expected one of {', '.join(FAMILIES)}."
        message = f'{run.origins["_family"]} is "{run.get("_family")}", which SimpleTuner does not have; {hint}'
        _stop(run, "invalid-value", message, "_family")
    known = FAMILIES[word]
    flavour, named = _flavour(run, known), _named(run)
    name = named or known.flavours[flavour]
    try:
        run.put(
            "model.name",
            catalog.network(name).id,
            like="_name" if named else "_flavour" if "_flavour" in run.origins else "_family",
        )
    except ConfigError:
        key = next(path for path in ("_flavour", "_name", "_family") if path in run.origins)
        _stop(run, "not-modelled", f'{run.origins[key]} is "{run.get(key)}": the network of {name} is not modelled yet.', key)
    for dim, value in known.dims.get(flavour, {}).items():
        run.put(f"model.dims.{dim}", value, like="_flavour")
    if "_flavour" not in run.origins and not named:
        run.assumed["model.name"] = run.assumed["_flavour"]
        if "_name" in run.origins:
            message = f'"{run.get("_name")}" is not known, so the family\'s usual network, {run.get("model.name")}, is taken.'
            run.note("warning", "model-assumed", message, at="_name", fix="set model_flavour to the one that it was made from")


def _flavour(run: Draft, known: Family) -> str:
    flavours = tuple(known.flavours)
    if "_flavour" not in run.settled:
        run.assume("_flavour", flavours[0], f"helpers/models/{run.get('_family')}/model.py: DEFAULT_MODEL_FLAVOUR")
    flavour = str(run.get("_flavour"))
    if flavour not in known.flavours:
        guess = did_you_mean(flavour, flavours)
        hint = f"did you mean {guess}?" if guess else f"expected one of {', '.join(flavours)}."
        message = f'{run.origins["_flavour"]} is "{flavour}", which {run.get("_family")} does not have; {hint}'
        _stop(run, "invalid-value", message, "_flavour")
    return flavour


def _named(run: Draft) -> str | None:
    """The network that `pretrained_model_name_or_path` names, where it is a known model's name."""
    if "_name" not in run.origins or "_flavour" in run.origins:
        return None
    try:
        return catalog.network(str(run.get("_name"))).id
    except ConfigError:
        return None


def _method(run: Draft) -> None:
    lora = run.get("_type") == "lora"
    run.put("train.method", "lora" if lora else "full", like="_type")
    if not lora:
        run.drop("train.lora")
        if run.get("precision.quantization") != "no_change":
            message = "base_model_precision is for model_type lora: SimpleTuner refuses to train all weights of a quantised model."
            run.note(
                "error", "quantized-training", message, at="precision.quantization", fix="set base_model_precision to no_change"
            )
    elif run.get("_lora_type") == "lycoris":
        simpletuner_lycoris.settle(run)
    else:
        _targets(run)
        if run.get("train.lora.alpha") is None:
            run.put("train.lora.alpha", run.get("train.lora.rank"), like="train.lora.rank")
        if run.get("_dora"):
            run.note("warning", "dora", "DoRA's magnitudes and its norm of each weight are not counted.", at="_dora")
    run.check()


def _targets(run: Draft) -> None:
    if "train.lora.targets" in run.settled:
        targets: Any = [name for name in run.get("train.lora.targets") if name not in FUSED]
        run.put("train.lora.targets", targets or list(ATTENTION), like="train.lora.targets")
        return
    named = run.get("_flux_target")
    told = named in FLUX_TARGETS and run.get("_family") in ("flux", "chroma") and not run.get("_slider")
    targets = FLUX_TARGETS[named] if told else ATTENTION if run.get("_slider") else family(run).targets
    if told:
        run.put("train.lora.targets", list(targets), like="_flux_target")
    else:
        run.assume("train.lora.targets", list(targets), f"helpers/models/{run.get('_family')}/model.py: DEFAULT_LORA_TARGET")


def _precision(run: Draft) -> None:
    """cmd_args.py: weight_dtype; trainer.py: init_precision and move_models, after which adapters have the weights' dtype."""
    mixed, quantized = run.get("_mixed"), run.get("precision.quantization") != "no_change"
    if mixed == "fp8":
        _stop(run, "not-modelled", "mixed_precision fp8 is not modelled; expected bf16, fp16 or no.", "_mixed")
    low = "bf16" if mixed == "bf16" or (quantized and run.get("_base_dtype") == "bf16") else "fp16" if mixed == "fp16" else "fp32"
    weights = "fp32" if quantized and run.get("_base_dtype") == "fp32" else low
    like = "_base_dtype" if quantized and "_base_dtype" in run.origins else "_mixed"
    bfloat = run.get("train.optimizer.name") == "adamw_bf16"  # its parameters are made bfloat16: _ensure_parameter_dtype
    lora = run.get("train.method") == "lora"
    run.put("precision.weights", "bf16" if bfloat and not lora else weights, like=like)
    if lora:
        run.put("train.lora.dtype", "bf16" if bfloat else weights, like=like)
    if mixed in ("bf16", "fp16"):
        run.put("precision.autocast", mixed, like="_mixed")
        run.put("precision.attention", mixed, like="_mixed")
    if family(run).norms != "composite":
        run.put("precision.norms", family(run).norms)
    run.put("precision.tf32", not run.get("_tf32_off"), like="_tf32_off")
    _quantized(run, quantized)


def _quantized(run: Draft, quantized: bool) -> None:
    word = str(run.get("precision.quantization"))
    if not quantized:
        run.put("precision.quantization", "none", like="precision.quantization")
        return
    quanto = word.endswith("-quanto") and str(run.get("_family")) in PARTLY_QUANTO
    run.put("precision.quantization", f"{word}-simpletuner" if quanto else word, like="precision.quantization")
    run.put("precision.quantized_on", run.get("_quantized_on"), like="_quantized_on")
    if word.endswith("-bnb"):  # loaded as it is quantised, a file at a time
        run.put("precision.quantized_on", "host", like="precision.quantization")


def _unmodelled(run: Draft) -> None:
    """What adds to a step, or takes from it, and is not counted."""
    if run.get("_controlnet"):
        _stop(run, "not-modelled", f"{run.origins['_controlnet']}: ControlNet training is not modelled.", "_controlnet")
    if run.get("_text_training"):
        _stop(run, "not-modelled", "train_text_encoder: training the text encoders is not modelled.", "_text_training")
    if run.get("_distillation"):
        message = (
            f"distillation_method {run.get('_distillation')} is not counted: its passes of the teacher and what it trains besides."
        )
        run.note("warning", "distillation", message, at="_distillation")
    if run.get("_tread"):
        message = "TREAD's routes are not counted: they drop tokens, so the step needs less than is said here."
        run.note("note", "tread", message, at="_tread")
    for name in ("crepa", "urepa", "irepa", "layersync", "internal_guidance", "twinflow", "xm", "nextlat", "diff2flow"):
        if run.get(f"_loss.{name}"):
            message = f"{name}_enabled adds a loss whose passes are not counted, so the step needs more than is said here."
            run.note("warning", "further-loss", message, at=f"_loss.{name}")


def _stop(run: Draft, id_: str, message: str, at: str, fix: str | None = None) -> None:
    run.note("error", id_, message, at=at, fix=fix)
    run.check()
    raise AssertionError(message)
