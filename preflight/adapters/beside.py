"""Files that stand beside a training config and are none: how a run is launched, how a network is made.

A trainer's own files of data or validation are its adapter's business; these belong to no trainer.
"""

from __future__ import annotations

from typing import NamedTuple

from preflight.document import Document
from preflight.finding import ConfigError

NAMES_IT = "the launch script or the trainer's config that names it"


class Kind(NamedTuple):
    """A file that has all of `keys` at its top is `what`; `instead` is what to give."""

    keys: frozenset[str]
    what: str
    instead: str


KINDS = (
    # accelerate commands/config/config_args.py: BaseConfig
    Kind(frozenset({"compute_environment", "distributed_type"}), "accelerate's config, which says how a run is launched", NAMES_IT),
    # deepspeed runtime/config.py: DeepSpeedConfig
    Kind(frozenset({"zero_optimization"}), "DeepSpeed's config, which says how a run is divided between GPUs", NAMES_IT),
    Kind(
        frozenset({"train_micro_batch_size_per_gpu"}), "DeepSpeed's config, which says how a run is divided between GPUs", NAMES_IT
    ),
    # diffusers configuration_utils.py: save_config; transformers configuration_utils.py: to_json_string
    Kind(frozenset({"_class_name", "_diffusers_version"}), "the config of a network in diffusers", "the trainer's config"),
    Kind(frozenset({"architectures", "model_type"}), "the config of a network in transformers", "the trainer's config"),
)


def refuse(document: Document) -> None:
    """Raises ConfigError ("not-a-training-config") when `document` is one of KINDS."""
    found = next((kind for kind in KINDS if kind.keys <= document.data.keys()), None)
    if found is not None:
        message = f"This is {found.what}, not a training config; give {found.instead}."
        key = next(key for key in document.data if key in found.keys)
        raise ConfigError(document.finding("not-a-training-config", "error", message, key=key))
