"""What the values of kohya-ss' trainers mean, musubi-tuner's and sd-scripts'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.adapters.conversions import SILENT, Conversion, RefusedError
from preflight.adapters.run_values import ANYTHING

#: The trainers' own words; any other is a class, by its whole path or of torch.optim.
OPTIMIZERS: Mapping[str, tuple[str, int]] = {
    "adamw": ("adamw", 32),
    "adamw8bit": ("adamw", 8),
    "lion": ("lion", 32),
    "lion8bit": ("lion", 8),
    "sgdnesterov": ("sgd", 32),
    "sgdnesterov8bit": ("sgd", 8),
    "dadaptation": ("dadaptadampreprint", 32),
}
SPELLED = {"adamw": "AdamW", "adamw8bit": "AdamW8bit", "lion": "Lion", "lion8bit": "Lion8bit"}


def optimizers() -> Conversion:
    """`--optimizer_type`: its name, and the bits of its states."""
    expected = 'the name of an optimizer such as "adamw8bit"'

    def read(value: Any) -> tuple[str, int]:
        if not isinstance(value, str) or not value.strip():
            raise RefusedError(expected)
        word = value.strip().rpartition(".")[2].lower()
        return OPTIMIZERS.get(word, (word, 32))

    def write(value: tuple[str, int], raw: Any) -> Any:
        if isinstance(raw, str) and raw.strip() and read(raw) == tuple(value):
            return raw
        word = next((word for word, meaning in OPTIMIZERS.items() if meaning == tuple(value)), SILENT)
        return SPELLED.get(word, word) if isinstance(word, str) else word

    return Conversion(name="optimizer", read=read, write=write, schema={"type": "string", "minLength": 1})


def pairs() -> Conversion:
    """`--network_args "conv_dim=4" "conv_alpha=1"`: reads to a mapping of texts."""
    expected = 'texts such as "conv_dim=4"'

    def read(value: Any) -> dict[str, str]:
        items = [value] if isinstance(value, str) else value
        if items is True:
            return {}
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise RefusedError(expected)
        return {name.strip(): said.strip() for name, _, said in (item.partition("=") for item in items)}

    return Conversion(name="name=value", read=read, write=lambda _value, _raw: SILENT, schema=ANYTHING)
