"""What a table cannot say of an ai-toolkit run: which network it trains and how, and what the trainer refuses."""

from __future__ import annotations

import re
from collections.abc import Mapping

from preflight.adapters.ai_toolkit_memory import PROCESS, data, phases, resident, weights
from preflight.adapters.ai_toolkit_models import ARCHS, ELSEWHERE, FLAGS, Arch
from preflight.adapters.ai_toolkit_sliders import slider
from preflight.adapters.block_layers import layers
from preflight.adapters.draft import Draft
from preflight.finding import ConfigError

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
#: Where the repeated blocks of a network are, in the names that only_if_contains looks at.
CONTAINERS = tuple(
    f"transformer.{name}.0."
    for name in (
        "blocks", "transformer_blocks", "single_transformer_blocks", "double_blocks", "single_blocks", "layers", "noise_refiner",
        "context_refiner", "double_stream_blocks.0.block", "single_stream_blocks.0.block",
    )
)  # fmt: skip
#: A block's number in such a name, and words that stand for some of the blocks.
NUMBER = re.compile(r"((?:^|blocks|layers|refiner)[._]?)\d+")
SOME = re.compile(NUMBER.pattern + "|single|double|refiner")
WHOLE = 65_536  # a rank above every layer's


def settle(run: Draft) -> None:
    """Everything after the table, in the order in which one thing follows from another."""
    arch = _model(run)
    _refusals(run)
    _method(run, arch)
    weights(run, arch)
    data(run, arch)
    resident(run, arch)
    slider(run)
    phases(run, arch)
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
    run.put("train.lora.code", "ai-toolkit")
    kind = run.get("_kind")
    if kind not in ("lora", "lokr"):
        _beyond(run, "_kind", f'is "{kind}", a kind of adapter')
        run.check()
    if "_whole" in run.origins:
        _beyond(run, "_whole", "trains whole weights beside the adapters")
    run.put("train.lora.rank", run.get("_rank"), like="_rank")
    if kind == "lokr":
        run.put("train.lora.factor", run.get("_factor"), like="_kind")
        if run.get("_full_rank"):
            run.put("train.lora.rank", WHOLE, like="_kind")
    if arch.experts:
        run.put("train.lora.shared", not (run.get("_high") and run.get("_low")))
    run.put("train.lora.targets", _targets(run))


def _targets(run: Draft) -> list[str]:
    """Every linear layer in the repeated blocks, less what network_kwargs leave out (lora_special.py: create_modules).

    What leaves out a layer in some blocks only leaves it out in none here.
    """
    name, known = run.get("model.name"), layers(run.get("model.name"))
    if not known:
        message = f"Cannot judge: which layers of {name} ai-toolkit gives an adapter is not known here."
        run.note("error", "not-modelled", message, at="model.name")
        run.check()
    only, ignore = run.get("_only"), [word for word in run.get("_ignore") or () if not SOME.search(word)]
    kept = [layer for layer in known if only is None or any(_contains(layer, word) for word in only)]
    kept = [layer for layer in kept if not any(word in f".{layer}" for word in ignore)]
    if not kept:
        run.note(
            "error", "lora-target", f"No layer of {name} is left for an adapter.", at="_only" if only is not None else "_ignore"
        )
        run.check()
    for path in ("_only", "_ignore"):
        if any(SOME.search(word) for word in run.get(path) or ()):
            message = f"{run.origins[path]} picks some of the blocks; the layers that it names are counted in every block."
            run.note("warning", "single-blocks", message, at=path)
    return kept


def _contains(layer: str, word: str) -> bool:
    """Whether the name of `layer` in some block may contain `word`, with $$ or _ for the dots."""
    plain = NUMBER.sub(r"\g<1>0", word.replace("$$", "."))
    return any(plain in name for full in CONTAINERS for name in (full + layer, (full + layer).replace(".", "_")))


def _remarks(run: Draft) -> None:
    if run.get("_legacy_accumulation") != 1:
        message = (
            f"{run.origins['_legacy_accumulation']} gathers nothing: hook_train_loop drops the gradients before every step;"
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
    if not run.get("_only_blocks") and run.get("train.method") == "lora":
        message = "the layers outside of the blocks, which transformer_only: false adapts as well, are not counted: they are few."
        run.note("note", "not-counted", message, at="_only_blocks")
    if run.get("_all_layers"):
        message = "norms, which all_layers trains whole, are not counted: they are small beside linear layers."
        run.note("warning", "not-counted", message, at="_all_layers")
    if run.get("_conv") and run.get("model.name") in ("sdxl", "sd1.5") and run.get("train.method") == "lora":
        run.note("warning", "convolutions", "adapters on convolutions are not counted, only those on linear layers.", at="_conv")
