"""Quantised base weights: their bytes, and what a product with them makes and keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from preflight import catalog
from preflight.finding import ConfigError
from preflight.job import Job, job
from preflight.memory.budget import budget
from preflight.memory.model import Model, build
from preflight.memory.quantization import SCHEMES, scheme
from preflight.spec import Spec
from preflight.tape.meter import Meter
from preflight.tape.module import Linear
from preflight.tape.quantized import Quantized, linear
from preflight.tape.tensor import Parameter, Tape


def _model(
    quantization: str, *, name: str = "flux.1-dev", checkpointing: bool = False, offload: Mapping[str, Any] | None = None
) -> tuple[Job, Model]:
    data = {
        "model": {"name": name},
        "train": {"method": "lora", "lora": {"rank": 16, "dtype": "bf16"}, "checkpointing": checkpointing},
        "data": {"height": 256, "width": 256},
        "precision": {"weights": "bf16", "quantization": quantization},
        "offload": offload or {},
    }
    work = job(Spec.from_mapping(data), catalog.gpu("a100-80gb"))
    return work, build(work)


def _linear_weights() -> int:
    """Elements in the weights of all linear layers."""
    _, model = _model("none")
    layers = [module for _, module, _ in model.network.modules() if isinstance(module, Linear)]
    return sum(layer.weight.numel * layer.weight.copies for layer in layers)


@pytest.mark.parametrize(
    ("name", "bits"), [("int8", 8), ("fp8-torchao", 8), ("int8-sdnq", 9), ("nf4", 4.5), ("nf4-nested", 4 + 1 / 8 + 1 / 512)]
)
def test_bytes_of_the_weights(name: str, bits: float) -> None:
    _, wide = _model("none")
    _, narrow = _model(name)
    assert wide.frozen_bytes - narrow.frozen_bytes == pytest.approx(_linear_weights() * (2 - bits / 8), rel=1e-4)
    assert narrow.parameter_count == wide.parameter_count


def test_what_stands_around_the_blocks_stays_wide_under_sdnq() -> None:
    _, model = _model("int8-sdnq-hadamard")
    wide = {
        path.split(".")[0] for path, p in model.network.parameters() if path.endswith("weight") and p.nbytes >= 2 * p.numel > 1000
    }
    assert wide == {"x_embedder", "context_embedder", "time_text_embed", "norm_out", "proj_out"}


def test_few_rows_are_multiplied_by_a_wide_copy_and_in_autocasts_dtype() -> None:
    """The form's own product gives what it was given the dtype of, and has its integers beside that for a while."""
    weight = Quantized(Parameter((64, 128)), SCHEMES["int8-sdnq-hadamard"].form)
    tape = Tape(Meter())
    weight.tape, weight.dtype = tape, "bf16"
    with tape.autocasting("bf16"):
        few, many = (linear(tape.empty((rows, 128), "fp32"), weight, None) for rows in (31, 32))
    assert (few.dtype, many.dtype) == ("bf16", "fp32")


@pytest.mark.parametrize("name", ["fp8", "fp8-scaled"])
def test_only_the_blocks_are_cast(name: str) -> None:
    _, model = _model(name)
    narrow = {path.split(".")[0] for path, p in model.network.parameters() if p.nbytes < p.numel * 2 and p.numel > 1000}
    assert narrow == {"transformer_blocks", "single_transformer_blocks"}


def test_layers_named_after_norms_stay_wide_under_layerwise_casting() -> None:
    _, model = _model("fp8-layerwise")
    wide = [path for path, p in model.network.parameters() if path.endswith("linear.weight") and p.nbytes >= 2 * p.numel]
    assert any("norm1.linear" in path for path in wide)


def _activations(name: str, *, checkpointing: bool) -> int:
    work, model = _model(name, checkpointing=checkpointing)
    need = budget(work, model)
    return int(need.allocated) - need.resident.total


def test_a_form_that_saves_its_wide_copy_pays_for_every_layer() -> None:
    plain, saved, again = (_activations(name, checkpointing=False) for name in ("none", "fp8-torchao", "int8"))
    wide = 2 * _linear_weights()
    assert saved - plain > 0.5 * wide  # those that see only the timestep and the prompt want no gradient, and save nothing
    assert again - plain < 0.1 * wide


def test_checkpointing_keeps_the_wide_copies_of_one_block() -> None:
    plain, saved = (_activations(name, checkpointing=True) for name in ("none", "fp8-torchao"))
    assert 0 < saved - plain < 0.1 * 2 * _linear_weights()


@pytest.mark.parametrize("word", ["fp8_base", "FP8-Scaled", "bnb-nf4", "int8-quanto", "fp8wo-torchao", "none", *SCHEMES])
def test_words_that_are_known(word: str) -> None:
    assert (scheme(word) is None) == (word == "none")


@pytest.mark.parametrize("word", ["int4-gptq", "nf5", "8bit", "gguf-q4"])
def test_words_that_are_refused(word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        scheme(word)
    finding = caught.value.findings[0]
    assert finding.key == "precision.quantization"
    assert finding.message.startswith("Cannot judge: ")


def test_quantised_weights_do_not_train() -> None:
    data = {
        "model": {"name": "flux.1-dev"},
        "train": {"method": "full"},
        "data": {"height": 256, "width": 256},
        "precision": {"quantization": "nf4"},
    }
    with pytest.raises(ConfigError) as caught:
        build(job(Spec.from_mapping(data), None))
    assert caught.value.findings[0].id == "quantized-training"


def test_streamed_layers_leave_only_what_is_not_in_blocks() -> None:
    _, whole = _model("none", name="wan2.1-t2v-1.3b")
    _, streamed = _model("none", name="wan2.1-t2v-1.3b", offload={"layers": True})
    assert streamed.frozen_bytes < 0.1 * whole.frozen_bytes
    assert streamed.trainable_bytes == whole.trainable_bytes
