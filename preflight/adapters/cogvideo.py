"""CogVideo (THUDM, now zai-org): launches of finetune/train.py and of sat/train_video.py, and SAT's YAML with both its halves.

Names and defaults are github.com/THUDM/CogVideo, commit e519ece: finetune/schemas/args.py and trainer.py; sat/arguments.py,
sat/diffusion_video.py and sat/train_video.py, whose --base merges several files.
"""

from __future__ import annotations

from collections.abc import Mapping

from preflight.adapters import cogvideo_finetune, cogvideo_sat, flags
from preflight.adapters.reading import Adapter, Reading
from preflight.document import Document

#: Flags that finetune/train.py alone has.
TELLING = ("--train_resolution", "--model_path")


def matches(document: Document) -> bool:
    """A launch of either trainer, or a file with SAT's `model.network_config`, or `args` beside `deepspeed`."""
    if document.launch is not None:
        told = any(name in document.data for name in TELLING)
        return flags.runs(document, "train_video.py") or (told and flags.runs(document, "train.py"))
    model = document.data.get("model")
    network = isinstance(model, Mapping) and "network_config" in model
    return network or all(isinstance(document.data.get(name), Mapping) for name in ("args", "deepspeed"))


def read(document: Document) -> Reading:
    """Raises ConfigError for values that cannot be understood, for other networks, and for one half of SAT's config alone."""
    if document.launch is not None and not flags.runs(document, "train_video.py"):
        return cogvideo_finetune.read(document)
    return cogvideo_sat.read(document)


ADAPTER = Adapter(name="cogvideo", matches=matches, read=read, tables=(cogvideo_sat.TABLE, cogvideo_finetune.TABLE))
