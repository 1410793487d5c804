"""How ai-toolkit writes values: sizes of buckets, quantisations with an accuracy recovery adapter, optimizers by one word."""

from __future__ import annotations

from typing import Any

from preflight.adapters.conversions import SIDE, SILENT, Conversion, RefusedError, whole

#: toolkit/util/quantize.py: get_qtype, of optimum-quanto, torchao and ai-toolkit's own; ours for each.
QUANTIZATIONS = {
    "qfloat8": "fp8-quanto",
    "qfloat8_e4m3fn": "fp8-quanto",
    "qfloat8_e4m3fnuz": "fp8-quanto",
    "qfloat8_e5m2": "fp8-quanto",
    "qint8": "int8-quanto",
    "qint4": "int4-quanto",
    "qint2": "int2-quanto",
    "float8": "fp8-torchao",
    "int8": "int8",
    **{f"uint{bits}": f"uint{bits}" for bits in range(2, 8)},
    "uint8": "none",  # uintx_quant.py: can_quantize always refuses it
    "nvfp4": "nvfp4",
}
EIGHT = ("adam", "adamw", "lion")


def resolutions() -> Conversion:
    """A side in pixels, or a list that makes the data set as many (preprocess_dataset_raw_config); reads to the largest."""
    side, expected = whole(1, SIDE), "a side in pixels such as 1024, or a list such as [512, 768, 1024]"

    def read(value: Any) -> int:
        if isinstance(value, list) and not value:
            raise RefusedError(expected)
        return max(side.read(item) for item in value) if isinstance(value, list) else int(side.read(value))

    def write(value: int, raw: Any) -> Any:
        return [*(item for item in raw if item < value), value] if isinstance(raw, list) else value

    schema = {"anyOf": [side.schema, {"type": "array", "items": side.schema, "minItems": 1}]}
    return Conversion(name="resolutions", read=read, write=write, schema=schema)


def qtype() -> Conversion:
    """A quantisation, and whether an accuracy recovery adapter follows it: "uint4|path"."""
    expected = f"one of {', '.join(QUANTIZATIONS)}, with or without |ADAPTER"

    def read(value: Any) -> tuple[str, bool]:
        if not isinstance(value, str) or not value.strip():
            raise RefusedError(expected)
        word, _, adapter = value.strip().partition("|")
        return word, bool(adapter)

    def write(value: tuple[str, bool], raw: Any) -> Any:
        return (
            value[0] if not value[1] else f"{value[0]}|{raw.partition('|')[2]}" if isinstance(raw, str) and "|" in raw else SILENT
        )

    return Conversion(name="qtype", read=read, write=write, schema={"type": "string", "minLength": 1})


def optimizer() -> Conversion:
    """toolkit/optimizer.py: get_optimizer; reads to its name and bits."""

    def read(value: Any) -> tuple[str, int]:
        if not isinstance(value, str) or not value.strip():
            raise RefusedError("the name of an optimizer such as adamw8bit")
        word = value.strip().lower()
        plain = word.removesuffix("8bit")
        if word.startswith("prodigy") and not word.startswith("prodigy8bit"):
            word = "prodigy"
        return (plain, 8) if word.endswith("8bit") and plain in EIGHT else (word, 32)

    def write(value: tuple[str, int], _: Any) -> Any:
        if value[1] == 8:
            return f"{value[0]}8bit" if value[0] in EIGHT else SILENT
        return value[0]

    return Conversion(name="an optimizer", read=read, write=write, schema={"type": "string", "minLength": 1})


def percent() -> Conversion:
    """A share from 0 to 1, which ai-toolkit calls a percentage."""
    expected = "a share from 0 to 1, such as 0.7"

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise RefusedError(expected)
        return float(value)

    schema = {"type": "number", "minimum": 0, "maximum": 1}
    return Conversion(name="share", read=read, write=lambda value, _: value, schema=schema)


def patterns() -> Conversion:
    """A list of words that a module's name may contain."""

    def read(value: Any) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise RefusedError("a list of parts of modules' names")
        return list(value)

    schema = {"type": "array", "items": {"type": "string"}}
    return Conversion(name="parts of names", read=read, write=lambda value, _: list(value), schema=schema)


def network_type() -> Conversion:
    """NetworkConfig.type; what is not one of LoRA and LoKr is not modelled, and said so by the adapter."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise RefusedError("a kind of network such as lora or lokr")
        return value.strip().lower()

    return Conversion(name="network type", read=read, write=lambda value, _: value, schema={"type": "string", "minLength": 1})
