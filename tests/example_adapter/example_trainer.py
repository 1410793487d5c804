"""An imaginary trainer of LoRA on Wan: flat YAML with `trainer: example`."""

from __future__ import annotations

from preflight.adapters import Adapter, Reading
from preflight.adapters.conversions import RANKS, text, whole
from preflight.adapters.draft import draft
from preflight.adapters.table import HARDWARE, Field, Table
from preflight.document import Document

SOURCE = "example_trainer/config.py: Config"
TABLE = Table(
    unread="{key} is not read by the example trainer",
    fields=(
        Field(path="model.name", keys=("net",), convert=text("a model's name")),
        Field(path="train.lora.rank", keys=("rank",), convert=whole(1, RANKS), default=16, source=SOURCE),
        Field(path="train.batch", keys=("batch",), convert=whole(1, RANKS), default=1, source=SOURCE),
        Field(path="data.height", keys=("video.height",), convert=whole(1, RANKS), default=480, source=SOURCE),
        Field(path="data.width", keys=("video.width",), convert=whole(1, RANKS), default=832, source=SOURCE),
        Field(path="data.frames", keys=("video.frames",), convert=whole(1, RANKS), default=81, source=SOURCE),
        *HARDWARE,
    ),
    no_effect=("trainer", "seed"),
)


def matches(document: Document) -> bool:
    return document.data.get("trainer") == "example"


def read(document: Document) -> Reading:
    run = draft(document, TABLE)
    run.assume("train.method", "lora", SOURCE)
    run.assume("train.checkpointing", True, SOURCE)
    run.assume("data.latents", "cached", SOURCE)
    run.assume("data.text", "cached", SOURCE)
    run.assume("precision.weights", "bf16", SOURCE)
    return run.reading()


ADAPTER = Adapter(name="example-trainer", matches=matches, read=read, tables=(TABLE,))
