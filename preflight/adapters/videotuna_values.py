"""Values of VideoTuna's YAML: what Lightning's `strategy` and `devices` may be, and the networks its classes train."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from preflight.adapters.conversions import RANKS, SILENT, Conversion, RefusedError

#: The beginning of a class -> the network that it trains, which is not modelled.
UNMODELLED = {
    "videotuna.models.lvdm.ddpm3d.LatentVisualDiffusion": "DynamiCrafter",
    "videotuna.models.lvdm.": "VideoCrafter 2",
    "videotuna.flow.videocrafter.": "VideoCrafter 2",
    "videotuna.models.opensora.": "Open-Sora",
    "videotuna.flow.stepvideo.": "Step-Video",
    "videotuna.flow.hunyuanvideo.": "HunyuanVideo I2V",
}
#: Folders and tasks of the networks that are, in lower case.
NETWORKS = {
    "cogvideox-2b": "cogvideox-2b",
    "cogvideox-5b": "cogvideox-5b",
    "cogvideox-5b-i2v": "cogvideox-5b-i2v",
    "hunyuanvideo": "hunyuanvideo",
    "t2v-1.3b": "wan2.1-t2v-1.3b",
    "t2v-14b": "wan2.1-t2v-14b",
    "t2i-14b": "wan2.1-t2v-14b",
    "i2v-14b": "wan2.1-i2v-14b",
}
#: What Lightning's Trainer calls its precisions (2.4: plugins/precision, _PRECISION_INPUT_STR_ALIAS).
PRECISIONS = {
    "32-true": "32-true", "32": "32-true", "16-mixed": "16-mixed", "16": "16-mixed", "bf16-mixed": "bf16-mixed",
    "bf16": "bf16-mixed", "16-true": "16-true", "bf16-true": "bf16-true",
}  # fmt: skip
DDP = ("ddp", "auto", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false", "ddp_spawn")
#: lightning/pytorch/strategies/deepspeed.py, DeepSpeedStrategy.register_strategies: stage, optimizer and parameters on the host.
DEEPSPEED: dict[str, tuple[int, bool, bool]] = {
    "deepspeed": (2, False, False),
    "deepspeed_stage_1": (1, False, False),
    "deepspeed_stage_1_offload": (1, True, False),
    "deepspeed_stage_2": (2, False, False),
    "deepspeed_stage_2_offload": (2, True, False),
    "deepspeed_stage_3": (3, False, False),
    "deepspeed_stage_3_offload": (3, True, True),
}
#: The same file, DeepSpeedStrategy.__init__ and _create_default_config: sizes in elements.
ZERO = {"contiguous_gradients": True, "overlap_comm": True, "reduce_scatter": True, "reduce_bucket_size": 200_000_000}
ZERO_3 = {**ZERO, "sub_group_size": 1_000_000_000_000}


def strategy() -> Conversion:
    """`strategy`: a name of Lightning's, or a class with its params. Reads to a mapping, with `stage` 0 for DDP."""
    words = ", ".join((*DDP[:1], *DEEPSPEED))
    expected = f"one of {words}, or a mapping with the target DDPStrategy or DeepSpeedStrategy"

    def read(value: Any) -> dict[str, Any]:
        if isinstance(value, str) and value.strip() in (*DDP, *DEEPSPEED):
            stage, optimizer, parameters = DEEPSPEED.get(value.strip(), (0, False, False))
            return {"stage": stage, "optimizer": optimizer, "parameters": parameters, **_buckets(stage)}
        target = str(value.get("target", "")).rsplit(".", 1)[-1] if isinstance(value, Mapping) else ""
        if target not in ("DDPStrategy", "DeepSpeedStrategy"):
            raise RefusedError(expected)
        params = value.get("params") or {}
        return _deepspeed(params if isinstance(params, Mapping) else {}) if target == "DeepSpeedStrategy" else {"stage": 0}

    def write(value: Any, raw: Any) -> Any:
        if isinstance(raw, Mapping):
            return SILENT
        wanted = (value["stage"], value["optimizer"], value["parameters"])
        return next((name for name, meaning in DEEPSPEED.items() if meaning == wanted and name != "deepspeed"), SILENT)

    schema = {"anyOf": [{"enum": [*DDP, *DEEPSPEED]}, {"type": "object", "required": ["target"]}]}
    return Conversion(name="Lightning's strategy", read=read, write=write, schema=schema)


def _buckets(stage: int) -> dict[str, Any]:
    return {f"zero.{name}": value for name, value in ({0: {}, 3: ZERO_3}.get(stage, ZERO)).items()}


def _deepspeed(params: Mapping[str, Any]) -> dict[str, Any]:
    """DeepSpeedStrategy's arguments; with a `config` all others are left aside, and DeepSpeed's own defaults hold."""
    config = params.get("config")
    if not isinstance(config, Mapping):
        stage = _stage(params.get("stage", 2))
        return {
            "stage": stage,
            "optimizer": params.get("offload_optimizer") is True,
            "parameters": params.get("offload_parameters") is True,
            **_buckets(stage),
            **_sizes(params),
        }
    zero = config.get("zero_optimization")
    zero = zero if isinstance(zero, Mapping) else {}
    half = {word: _on(config, word) for word in ("bf16", "fp16")}
    return {
        "stage": _stage(zero.get("stage", 0)),
        "optimizer": _away(zero, "offload_optimizer"),
        "parameters": _away(zero, "offload_param"),
        **_sizes(zero),
        **{word: on for word, on in half.items() if on is not None},
    }


def _stage(value: Any) -> int:
    if isinstance(value, bool) or value not in (0, 1, 2, 3):
        raise RefusedError("a stage from 0 to 3 in DeepSpeed's settings")
    return int(value)


def _sizes(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ZERO_3 that `settings` has; DeepSpeed leaves what is "auto" to itself."""
    found: dict[str, Any] = {}
    for name, usual in ZERO_3.items():
        value = settings.get(name)
        if value in (None, "auto"):
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 10**15
        if not (isinstance(value, bool) if isinstance(usual, bool) else number):
            raise RefusedError(f"{'true or false' if isinstance(usual, bool) else 'a number of elements'} for {name}")
        found[f"zero.{name}"] = value if isinstance(usual, bool) else int(value)
    return found


def _on(config: Mapping[str, Any], word: str) -> bool | None:
    """Whether `word` is enabled; "auto" is taken for yes, as any text is true (runtime/config.py: get_bfloat16_enabled)."""
    group = config.get(word)
    return bool(group.get("enabled", False)) if isinstance(group, Mapping) else None


def _away(zero: Mapping[str, Any], name: str) -> bool:
    group = zero.get(name)
    return isinstance(group, Mapping) and group.get("device", "none") in ("cpu", "nvme")


def devices() -> Conversion:
    """`devices`: how many GPUs of a node. 4, [0, 1] and "0,1" (indices, as with any comma) count; -1 and "auto" say nothing."""
    expected = 'a number of GPUs, a list of indices such as [0, 1], or "0,1"'

    def read(value: Any) -> Any:
        if value in ("auto", "-1") or (value == -1 and not isinstance(value, bool)):
            return SILENT
        number = int(value) if isinstance(value, str) and re.fullmatch(r"\s*\d{1,6}\s*", value) else value
        if isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= RANKS:
            return number
        if isinstance(value, str) and re.fullmatch(r"\s*\d{1,4}\s*(,\s*\d{1,4}\s*)*,?\s*", value):
            return len([part for part in value.split(",") if part.strip()])
        if isinstance(value, list) and value and all(isinstance(part, int) and not isinstance(part, bool) for part in value):
            return len(value)
        raise RefusedError(expected)

    def write(value: int, raw: Any) -> Any:
        if isinstance(raw, list):
            return list(range(value))
        return ",".join(map(str, range(value))) + ("," if value == 1 else "") if isinstance(raw, str) and "," in raw else value

    schema = {"type": ["integer", "string", "array"]}
    return Conversion(name="devices", read=read, write=write, schema=schema)
