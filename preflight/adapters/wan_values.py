"""The values that Wan users write: model names, optimizers, GPU counts, guidance scales."""

from __future__ import annotations

import re
from typing import Any

from preflight.adapters.conversions import RANKS, SILENT, Conversion, RefusedError, choice, real, text, whole

#: Wan's own module names (wan/modules/model.py), and those of the diffusers network that is modelled.
MODULES: dict[str, tuple[str, ...]] = {
    "q": ("to_q",),
    "k": ("to_k",),
    "v": ("to_v",),
    "o": ("to_out.0",),
    "ffn.0": ("ffn.net.0.proj",),
    "ffn.2": ("ffn.net.2",),
    **{
        f"{wan}.{short}": (f"{ours}.{module}",)
        for wan, ours in (("self_attn", "attn1"), ("cross_attn", "attn2"))
        for short, module in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"))
    },
}

#: wan/configs/__init__.py: SIZE_CONFIGS, by the names users give them.
SIZES = {"720p": (1280, 720), "480p": (832, 480)}

MODEL = re.compile(r"wan[-_ ]?(2[._]?[12])[-_ .]*(ti2v|t2v|i2v)[-_ ]*(a14b|14b|5b|1[._]3b)")
TASK = re.compile(r"^(ti2v|t2v|i2v)[-_ ]?(a14b|14b|5b|1[._]3b)$")
BARE = re.compile(r"^(wan[-_ ]?(2[._]?[12])?([-_ ]?lora)?|ti2v|t2v|i2v|lora)$")


def _identity(task: str, scale: str, version: str | None) -> str:
    scale = scale.replace("_", ".")
    if version == "2.2" and scale == "14b":
        scale = "a14b"
    version = version or ("2.2" if scale in ("a14b", "5b") else "2.1")
    return f"wan{version}-{task}-{scale}"


def model(*, path: bool = False) -> Conversion:
    """A model's name, task or path; one that does not say which model it is says nothing if it is a `path` or a family's name."""

    def read(value: Any) -> Any:
        name = text("a model such as Wan2.2-T2V-A14B").read(value)
        lower = name.lower()
        if found := MODEL.search(lower):
            version = found[1].replace("_", ".")
            return _identity(found[2], found[3], version if "." in version else f"2.{version[-1]}")
        if found := TASK.match(lower):
            return _identity(found[1], found[2], None)
        return SILENT if path or BARE.match(lower) else lower

    return Conversion(name="Wan model", read=read, write=lambda value, _: value, schema={"type": "string", "minLength": 1})


def optimizer() -> Conversion:
    """A name, and its states' bits if it says: adamw, "AdamW 8-bit", adamw_bnb_8bit, paged_adamw_8bit, adamw_torch."""

    def read(value: Any) -> tuple[Any, Any]:
        plain = re.sub(r"[^a-z0-9]", "", text('an optimizer such as adamw or "AdamW 8-bit"').read(value).lower())
        short = re.sub(r"(torchoptim|torch|fused|bnb|bitsandbytes|paged|8bit|optimizer)", "", plain)
        if not short:
            raise RefusedError('an optimizer such as adamw or "AdamW 8-bit"')
        return short, 8 if "8bit" in plain else SILENT

    def write(value: tuple[str, int], _: Any) -> Any:
        name, bits = value
        return {8: f"{name}8bit", 32: name}.get(bits, SILENT)

    return Conversion(name="optimizer", read=read, write=write, schema={"type": "string", "minLength": 1})


def mixed_precision() -> Conversion:
    """accelerate's mixed_precision: the frozen base is loaded in that dtype, and the forward pass autocasts to it."""
    low = {
        "bf16": "bf16",
        "bfloat16": "bf16",
        "torch.bfloat16": "bf16",
        "fp16": "fp16",
        "float16": "fp16",
        "torch.float16": "fp16",
    }
    inner = choice("a precision", {**low, "no": "fp32", "none": "fp32", "fp32": "fp32", "float32": "fp32"})

    def read(value: Any) -> tuple[str, str | None]:
        dtype = inner.read(value)
        return dtype, None if dtype == "fp32" else dtype

    def write(value: tuple[str, str | None], raw: Any) -> Any:
        weights, autocast = value
        return inner.write(weights, raw) if autocast == (None if weights == "fp32" else weights) else SILENT

    return Conversion(name="mixed precision", read=read, write=write, schema=inner.schema)


def gpus() -> Conversion:
    """A count, or the list of devices: 2, [0, 1] or "0,1"."""

    def read(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"\s*\d+(\s*,\s*\d+)+\s*", value):
            value = value.split(",")
        return len(value) if isinstance(value, list) and value else whole(1, RANKS).read(value)

    def write(value: int, raw: Any) -> Any:
        if isinstance(raw, list):
            return list(range(value))
        return ",".join(map(str, range(value))) if isinstance(raw, str) else value

    options = [{"type": "integer", "minimum": 1}, {"type": "array", "minItems": 1}, {"type": "string"}]
    return Conversion(name="GPU count", read=read, write=write, schema={"anyOf": options})


def gpu() -> Conversion:
    """A GPU's name, which may come with a count: "V100 32GB", "2 x V100 32GB", "V100 32GB x 2"."""
    count = r"(?:(?P<before>[0-9]{1,5})\s*[x×]\s+)?(?P<name>.*?)(?:\s+[x×]\s*(?P<after>[0-9]{1,5}))?"

    def read(value: Any) -> tuple[str, Any]:
        found = re.fullmatch(count, text('the name of a GPU such as "V100 32GB"').read(value))
        number = found and (found["before"] or found["after"])
        return (found["name"] if found else value), whole(1, RANKS).read(int(number)) if number else SILENT

    return Conversion(name="GPU", read=read, write=lambda value, _: value[0], schema={"type": "string", "minLength": 1})


def guidance() -> Conversion:
    """Guided sampling runs the network on two prompts; a scale of 1 does not. Wan 2.2 takes a pair, low noise and high."""

    def read(value: Any) -> bool:
        if isinstance(value, dict):
            value = list(value.values())
        scales = value if isinstance(value, list) and value else [value]
        return any(real(0, 1000).read(scale) > 1 for scale in scales)

    return Conversion(name="guidance scale", read=read, write=lambda *_: SILENT, schema={"type": ["number", "array", "object"]})
