"""One trainer's format a file; the file's name, with dashes, is the adapter's name.

Other packages can add their own: see `preflight.adapters.installed`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from preflight.adapters import beside, installed
from preflight.adapters.reading import Adapter, Assumed, Reading
from preflight.document import Document
from preflight.finding import ConfigError, Finding, did_you_mean
from preflight.launching.launch import Launch

__all__ = ["ADAPTERS", "Adapter", "Assumed", "Reading", "by_name", "detect", "documentation", "names"]

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
    "simpletuner",
    "ai-toolkit",
    "musubi",
    "kohya",
    "diffsynth",
    "videox-fun",
    "videotuna",
    "cogvideo",
    "fastvideo",
    "finetrainers",
)


def names() -> tuple[str, ...]:
    """The adapters there are, in the order in which they are asked: those that are installed beside ours first."""
    return (*(name for name in installed.names() if name not in ADAPTERS), *ADAPTERS)


def documentation(name: str) -> str:
    """What the adapter called `name` reads: its file's docstring."""
    return (_module(name) if name in ADAPTERS else installed.module(name)).__doc__ or ""


def by_name(name: str) -> Adapter:
    """The adapter called `name`.

    Raises ConfigError: "unknown-adapter" with the name that was probably meant, "bad-adapter" for an installed one that does not
    load.
    """
    if name in ADAPTERS:
        adapter: Adapter = _module(name).ADAPTER
        return adapter
    if name in installed.names():
        return installed.load(name)
    guess = did_you_mean(name, names())
    hint = f"did you mean {guess}?" if guess else f"there are {', '.join(names())}."
    raise ConfigError(Finding(id="unknown-adapter", severity="error", message=f"unknown adapter {name!r}: {hint}"))


def _module(name: str) -> Any:
    return import_module(f"preflight.adapters.{name.replace('-', '_')}")


def detect(document: Document) -> Adapter:
    """The first adapter that knows `document` by its content.

    Raises ConfigError when none does: "unknown-family", "unknown-program" for a launch, "not-a-training-config" for a file of
    another kind; and "bad-adapter" where an installed one does not load, which might have known it.
    """
    broken: list[Finding] = []
    for name in names():
        try:
            adapter = by_name(name)
        except ConfigError as problem:  # an installed one, which matters only where nobody else knows the config
            broken += problem.findings
            continue
        if adapter.matches(document):
            return adapter
    if broken:
        raise ConfigError(*broken)
    if document.launch is not None:
        raise ConfigError(_unknown_program(document, document.launch))
    beside.refuse(document)
    keys = [str(key) for key in document.data]
    seen = ", ".join(keys[:8]) + (", …" if len(keys) > 8 else "")
    message = f"unknown family: no adapter knows a config with the top-level keys {seen}; there are {', '.join(names())}."
    fix = "--adapter NAME reads it as one of these"
    raise ConfigError(document.finding(id="unknown-family", severity="error", message=message, fix=fix))


def _unknown_program(document: Document, launch: Launch) -> Finding:
    words = (*launch.arguments, *(value for value in document.data.values() if isinstance(value, str)))
    config = next((word for word in words if word.endswith((".yaml", ".yml", ".toml", ".json"))), None)
    fix = f"preflight {config} judges the config that it names" if config else "--adapter NAME reads its flags as a known trainer's"
    message = f"no adapter knows {launch.program}, the program that is started here."
    return Finding(id="unknown-program", severity="error", message=message, line=launch.line, column=1, fix=fix)
