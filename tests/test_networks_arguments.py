"""The families that are built from a constructor's arguments: defaults filled in, and refusals that say what is not modelled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflight.networks.cogvideox import CogVideoX
from preflight.networks.diffusers_unet2d import UNet2D
from preflight.networks.ltx_video import LTXVideo
from preflight.networks.network import Network, NotModelled, Shape
from preflight.networks.neuralop_fno import FNO
from preflight.tape.backward import backward
from preflight.tape.meter import ArrayMeter, Meter, Size
from preflight.tape.module import Checkpointing
from preflight.tape.tensor import Tape

FNO_DIMS = {"n_modes": [8, 8], "in_channels": 1, "out_channels": 1, "hidden_channels": 8}
UNET_DIMS = {
    "block_out_channels": [32, 32],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}
COG_DIMS = {"num_attention_heads": 2, "num_layers": 3, "use_rotary_positional_embeddings": True}
LTX_DIMS = {"num_attention_heads": 2, "num_layers": 3, "cross_attention_dim": 128}
FAMILIES = [(FNO, FNO_DIMS), (UNet2D, UNET_DIMS), (CogVideoX, COG_DIMS), (LTXVideo, LTX_DIMS)]


@pytest.mark.parametrize(
    ("family", "dims", "message"),
    [
        (FNO, {"n_mode": [8]}, "neuralop's FNO has no argument 'n_mode'"),
        (FNO, {"n_modes": [8]}, "neuralop's FNO needs the argument 'in_channels'"),
        (FNO, {**FNO_DIMS, "n_modes": [4] * 4}, "neuralop's FNO over 4 dimensions is not modelled, only over 1, 2 or 3"),
        (FNO, {**FNO_DIMS, "separable": True}, "separable True of neuralop's FNO is not modelled, only False"),
        (FNO, {**FNO_DIMS, "factorization": "Tucker"}, "factorization 'Tucker' of neuralop's FNO is not modelled, only None"),
        (UNet2D, {"channels": 3}, "diffusers' UNet2DModel has no argument 'channels'"),
        (UNet2D, {"act_fn": "prelu"}, "act_fn 'prelu' of diffusers' UNet2DModel is not modelled, only 'gelu'"),
        (UNet2D, {**UNET_DIMS, "up_block_types": ["KUpBlock2D"] * 2}, "up_block_types 'KUpBlock2D' of diffusers' UNet2DModel"),
        (UNet2D, {"norm_num_groups": None}, "diffusers' UNet2DModel without norm_num_groups is not modelled"),
        (LTXVideo, {"patch_size": 2}, "LTX-Video with patch_size 2 is not modelled, only 1"),
    ],
)
def test_what_is_not_modelled_says_so(family: type[Network], dims: Mapping[str, Any], message: str) -> None:
    with pytest.raises(NotModelled) as refusal:
        family(dims, Checkpointing())
    assert str(refusal.value).startswith(message)
    assert not str(refusal.value).endswith(".")


@pytest.mark.parametrize(
    ("family", "dims", "message"),
    [
        (FNO, {**FNO_DIMS, "domain_padding": [0.1]}, "domain_padding has 1 numbers for 2 dimensions"),
        (UNet2D, {**UNET_DIMS, "block_out_channels": [32]}, "down_block_types and block_out_channels are not of one length"),
        (UNet2D, {**UNET_DIMS, "block_out_channels": [48, 48]}, "48 channels do not divide into 32 groups"),
    ],
)
def test_what_the_original_refuses_is_refused(family: type[Network], dims: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        family(dims, Checkpointing())


def _peaks(family: type[Network], dims: Mapping[str, Any], checkpointing: Any, shape: Shape, meter: Meter) -> tuple[Size, Size]:
    network = family(dims, Checkpointing(checkpointing))
    tape = Tape(meter)
    network.bind(tape)
    meter.part("forward")
    loss = network.loss(tape, shape, "fp32")
    meter.part("backward")
    backward(loss)
    del loss
    meter.part("end")
    return meter.parts["forward"].peak, meter.parts["backward"].peak


def _shape(batch: Size, scale: Size) -> Shape:
    return Shape(batch=batch, height=64 * scale, width=128 * scale, frames=8 * scale + 1, text_tokens=226)


@pytest.mark.parametrize(("family", "dims"), FAMILIES, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("checkpointing", [False, True])
def test_one_walk_over_many_sizes_is_a_walk_over_each(family: type[Network], dims: Mapping[str, Any], checkpointing: bool) -> None:
    batches, scales = [2, 3, 5], [1, 2, 4]
    shape = _shape(np.array(batches, dtype=np.int64), np.array(scales, dtype=np.int64))
    together = _peaks(family, dims, checkpointing, shape, ArrayMeter())
    for i, (batch, scale) in enumerate(zip(batches, scales, strict=True)):
        alone = _peaks(family, dims, checkpointing, _shape(batch, scale), Meter())
        assert tuple(int(part[i]) for part in together) == alone


@pytest.mark.parametrize(("family", "dims"), FAMILIES, ids=lambda value: getattr(value, "__name__", ""))
@given(batch=st.integers(1, 80), scale=st.integers(1, 3))
def test_a_larger_batch_never_takes_less(family: type[Network], dims: Mapping[str, Any], batch: int, scale: int) -> None:
    less = _peaks(family, dims, False, _shape(batch, scale), Meter())
    more = _peaks(family, dims, False, _shape(batch + 1, scale), Meter())
    assert less <= more
    assert less[1] <= more[1]


@pytest.mark.parametrize(("family", "dims"), FAMILIES, ids=lambda value: getattr(value, "__name__", ""))
def test_all_that_a_step_made_is_freed(family: type[Network], dims: Mapping[str, Any]) -> None:
    network = family(dims, Checkpointing())
    meter = Meter()
    tape = Tape(meter)
    network.bind(tape)
    meter.part("forward")
    loss = network.loss(tape, _shape(2, 1), "fp32")
    meter.part("backward")
    backward(loss)
    del loss
    kept = sum(tensor.storage.nbytes for tensor in getattr(network, "grid", []))  # the FNO keeps its grid
    assert meter.live == meter.gradients + kept


@given(modes=st.lists(st.integers(2, 40), min_size=1, max_size=3))
def test_more_modes_than_the_grid_has_are_the_grids(modes: list[int]) -> None:
    dims = {**FNO_DIMS, "n_modes": modes}
    shape = Shape(batch=2, height=16, width=16, frames=16)
    many = Shape(batch=np.array([2]), height=np.array([16]), width=np.array([16]), frames=np.array([16]))
    assert _peaks(FNO, dims, False, shape, Meter()) == tuple(int(x[0]) for x in _peaks(FNO, dims, False, many, ArrayMeter()))
