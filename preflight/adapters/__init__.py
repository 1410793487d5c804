"""One trainer's format a file; the file's name, with dashes, is the adapter's name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from preflight.adapters.reading import Adapter, Assumed, Reading
from preflight.document import Document
from preflight.finding import ConfigError, Finding, did_you_mean
from preflight.launching.launch import Launch

__all__ = ["ADAPTERS", "Adapter", "Assumed", "Reading", "by_name", "detect"]

#: In the order in which they are asked whether they know a config.
ADAPTERS = (
    "native",
    "wan-lora",
    "diffsr",
    "hunyuandit",
    "sr3",
    "resshift",
    "basicsr",
    "neuraloperator",
    "ltx-trainer",
    "diffusion-pipe",
)


def documentation(name: str) -> str:
    """What the adapter called `name` reads: its file's docstring."""
    return _module(name).__doc__ or ""


def by_name(name: str) -> Adapter:
    """The adapter called `name`. Raises ConfigError ("unknown-adapter") with the name that was probably meant."""
    if name not in ADAPTERS:
        guess = did_you_mean(name, ADAPTERS)
        hint = f"did you mean {guess}?" if guess else f"there are {', '.join(ADAPTERS)}."
        raise ConfigError(Finding(id="unknown-adapter", severity="error", message=f"unknown adapter {name!r}: {hint}"))
    adapter: Adapter = _module(name).ADAPTER
    return adapter


def _module(name: str) -> Any:
    return import_module(f"preflight.adapters.{name.replace('-', '_')}")


def detect(document: Document) -> Adapter:
    """The first adapter that knows `document` by its content. Raises ConfigError ("unknown-family") when none does."""
    for name in ADAPTERS:
        adapter = by_name(name)
        if adapter.matches(document):
            return adapter
    if document.launch is not None:
        raise ConfigError(_unknown_program(document, document.launch))
    keys = [str(key) for key in document.data]
    seen = ", ".join(keys[:8]) + (", …" if len(keys) > 8 else "")
    message = f"unknown family: no adapter knows a config with the top-level keys {seen}; there are {', '.join(ADAPTERS)}."
    fix = "--adapter NAME reads it as one of these"
    raise ConfigError(document.finding(id="unknown-family", severity="error", message=message, fix=fix))


def _unknown_program(document: Document, launch: Launch) -> Finding:
    words = (*launch.arguments, *(value for value in document.data.values() if isinstance(value, str)))
    config = next((word for word in words if word.endswith((".yaml", ".yml", ".toml", ".json"))), None)
    fix = f"preflight {config} judges the config that it names" if config else "--adapter NAME reads its flags as a known trainer's"
    message = f"no adapter knows {launch.program}, the program that is started here."
    return Finding(id="unknown-program", severity="error", message=message, line=launch.line, column=1, fix=fix)
