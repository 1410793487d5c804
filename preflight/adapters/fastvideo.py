"""FastVideo (hao-ai-lab): the YAML of fastvideo/train, and launches of it and of fastvideo/training's pipelines by flags.

Names and defaults are github.com/hao-ai-lab/FastVideo, commit 2f3d407: fastvideo/train/utils/training_config.py and config.py, and
fastvideo/fastvideo_args.py. Modelled: fine-tuning of Wan 2.1, causal Wan, HunyuanVideo and Cosmos-Predict2, LTX-2 by adapters,
and distillation of Wan by DMD2 and from a teacher's own paths; no rollouts over a cache (self-forcing).
"""

from __future__ import annotations

from preflight.adapters import fastvideo_flags, fastvideo_yaml
from preflight.adapters.reading import Adapter, Reading
from preflight.document import Document


def matches(document: Document) -> bool:
    """A `models` or `method` of fastvideo's, or the launch of a pipeline of fastvideo/training."""
    return fastvideo_flags.matches(document) if document.launch is not None else fastvideo_yaml.matches(document)


def read(document: Document) -> Reading:
    """Raises ConfigError for values that cannot be understood, and for what is not modelled."""
    return fastvideo_flags.read(document) if document.launch is not None else fastvideo_yaml.read(document)


ADAPTER = Adapter(name="fastvideo", matches=matches, read=read, tables=(fastvideo_yaml.TABLE, fastvideo_flags.TABLE))
