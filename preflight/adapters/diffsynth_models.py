"""What DiffSynth-Studio's trainers load: which of the files that a launch names is the network, and which are its encoders.

An entry is `MODEL_ID:FILE_PATTERN` of --model_id_with_origin_paths, or a file or list of files of --model_paths
(diffsynth/diffusion/training_module.py: parse_model_configs).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from preflight import catalog
from preflight.adapters.conversions import SILENT, Conversion, RefusedError
from preflight.adapters.wan_values import MODEL
from preflight.finding import ConfigError

Role = Literal["network", "text", "image", "vae"]

ROLES: tuple[tuple[Role, re.Pattern[str]], ...] = (
    ("text", re.compile(r"text_encoder|models_t5|umt5|t5[-_]?xxl|clip_[lg]\b|gemma|llava|connectors|/tokenizer")),
    ("image", re.compile(r"models_clip|image_encoder|siglip|image_proj")),
    ("vae", re.compile(r"(^|[/_.\- ])((wan|ltx)[\w.]*_)?([a-z]+_)?vae|(^|/)ae\.(safetensors|sft|pth)")),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """`text` as it is written, `where` its model id or folders, `file` the pattern."""

    text: str
    where: str
    file: str
    role: Role

    @property
    def expert(self) -> Literal["high", "low"] | None:
        """Which of Wan 2.2's two networks this is."""
        found = re.search(r"(high|low)[-_]?noise", self.file.lower())
        return None if found is None else "high" if found[1] == "high" else "low"


def entry(text: str) -> Entry:
    """The parts of one entry, and what its file holds by its name: the network where it is nothing else."""
    where, colon, file = text.rpartition(":")
    if not colon:
        where, file = text.rpartition("/")[0], text
    words = file.lower()
    role: Role = next((role for role, pattern in ROLES if pattern.search(words)), "network")
    if role == "network" and re.search(r"gemma|umt5|qwen2\.5-vl|qwen3", where.lower().rpartition("/")[2]):
        role = "text"
    return Entry(text=text, where=where, file=file, role=role)


def network(found: Entry) -> str | None:
    """The catalog's name of the entry's network, or the user's of one that is not modelled; None where nobody knows it."""
    known = next(filter(None, map(_known, _names(found))), None)
    if known is not None:
        return known
    wan = MODEL.search(found.text.lower())
    if wan is None or re.search(r"fun|vace|camera|animate|s2v|flf2v", found.text.lower()):
        return None
    scale = "a14b" if wan[1].endswith("2") and wan[3] == "14b" else wan[3].replace("_", ".")
    return f"wan2.{wan[1][-1]}-{wan[2]}-{scale}"


def _known(name: str) -> str | None:
    try:
        return catalog.network(name).id
    except ConfigError as problem:
        return name if problem.findings[0].message.endswith("is not modelled yet.") else None


def _names(found: Entry) -> Iterator[str]:
    """What the entry may be called: its id, and the folders and the file of its path from the last one up."""
    yield found.where
    folders = [part for part in re.split(r"[/:]", found.text) if part]
    for below, part in zip([*folders[1:], ""], folders, strict=True):
        if below:
            yield f"{part}/{below}"
    for part in reversed(folders):
        yield part
        yield part.partition(".safetensors")[0]


def ids() -> Conversion:
    """--model_id_with_origin_paths: entries with commas between them."""
    expected = "entries such as Wan-AI/Wan2.1-T2V-14B:diffusion_pytorch_model*.safetensors, with commas between them"

    def read(value: Any) -> tuple[Entry, ...]:
        words = [word.strip() for word in value.split(",")] if isinstance(value, str) else []
        if not any(words):
            raise RefusedError(expected)
        return tuple(entry(word) for word in words if word)

    return Conversion(name="models", read=read, write=lambda *_: SILENT, schema={"type": "string", "minLength": 1})


def files() -> Conversion:
    """--model_paths: a JSON list of files, or of lists of the files that one model is in."""
    expected = 'a list in JSON, such as \'["dit.safetensors", "t5.pth", "vae.pth"]\''

    def read(value: Any) -> tuple[Entry, ...]:
        try:
            listed = json.loads(value) if isinstance(value, str) else value
        except ValueError:
            raise RefusedError(expected) from None
        firsts = [item[0] if isinstance(item, list) and item else item for item in listed] if isinstance(listed, list) else []
        if not firsts or not all(isinstance(item, str) and item.strip(' ["') for item in firsts) or str(firsts[0]).startswith("["):
            raise RefusedError(expected)
        return tuple(entry(item.strip()) for item in firsts)

    schema = {"anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "minItems": 1}]}
    return Conversion(name="files", read=read, write=lambda *_: SILENT, schema=schema)


def listed(what: str) -> Conversion:
    """Entries of the models, again, or other names with commas between them."""

    def read(value: Any) -> tuple[str, ...]:
        if not isinstance(value, str):
            raise RefusedError(f"{what}, with commas between them")
        return tuple(word.strip() for word in value.split(",") if word.strip())

    return Conversion(name=what, read=read, write=lambda *_: SILENT, schema={"type": "string"})


#: diffsynth/core/quant/backends/bitsandbytes.py and torchao.py: the methods that let gradients through.
QUANTIZATION = {
    "bitsandbytes_nf4": "nf4-nested",
    "bitsandbytes_fp4": "fp4",
    "torchao_int8_w8a16": "int8",
    "torchao_fp8_w8a16": "fp8-torchao",
}


def quantized() -> Conversion:
    """--quant_options: `MODEL:METHOD/LAYERS;…`, where LAYERS stay wide. Reads to pairs of MODEL and METHOD."""
    methods = ", ".join(QUANTIZATION)

    def read(value: Any) -> tuple[tuple[str, str], ...]:
        found = []
        for option in str(value).split(";"):
            model, _, spec = option.strip().rpartition(":")
            if not option.strip():
                continue
            method = spec.partition("/")[0]
            if method not in QUANTIZATION or not model:
                raise RefusedError(f"MODEL:METHOD with one of the methods {methods}")
            found.append((model, method))
        return tuple(found)

    return Conversion(name="quantization", read=read, write=lambda *_: SILENT, schema={"type": "string"})


def optimizer() -> Conversion:
    """--customized_optimizer: a class by its module, such as bitsandbytes.optim.AdamW8bit. Reads to its name and bits."""

    def read(value: Any) -> tuple[str, int]:
        module, dot, name = str(value).strip().rpartition(".")
        if not dot or not module or not name:
            raise RefusedError("a class with its module, such as bitsandbytes.optim.AdamW8bit")
        return name.lower(), 8 if "8bit" in name.lower() else 32

    def write(value: tuple[str, int], _: Any) -> Any:
        return {("adamw", 32): "torch.optim.AdamW", ("adamw", 8): "bitsandbytes.optim.AdamW8bit"}.get(value, SILENT)

    return Conversion(name="optimizer", read=read, write=write, schema={"type": "string", "minLength": 1})


def of(entries: Sequence[Entry], role: Role) -> list[Entry]:
    return [found for found in entries if found.role == role]
