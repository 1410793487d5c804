"""Quantised base weights: which of a network's weights are narrow, in what form, and which words name it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from preflight.finding import ConfigError, Finding, did_you_mean
from preflight.networks.network import Network
from preflight.tape.dtypes import BYTES
from preflight.tape.module import Linear
from preflight.tape.quantized import Form, Quantized


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """`form` of the weights of linear layers: all, those in the repeated blocks, less those whose names match one of `skip`."""

    form: Form
    blocks_only: bool = False
    skip: tuple[str, ...] = ()


# Weights cast to 8-bit floats; each layer's is cast back when it runs, and the copy is what the product saves for the backward:
# musubi-tuner fp8_base under autocast
_FP8 = Scheme(form=Form(bits=8, keeps=True), blocks_only=True)
# diffusers hooks/layerwise_casting.py; the patterns that stay wide are those of finetrainers/args.py, and take the modulation's
# projections with the norms
_FP8_LAYERWISE = Scheme(
    form=Form(bits=8, keeps=True),
    skip=("patch_embed", "pos_embed", "x_embedder", "context_embedder", "time_embed", "^proj_in$", "^proj_out$", "norm"),
)
# musubi-tuner modules/fp8_optimization_utils.py: one 16-bit scale for each 64 weights; weight.to(…) lives while it is scaled
_FP8_SCALED = Scheme(form=Form(bits=8 + 16 / 64, keeps=True, copies=2), blocks_only=True)
# torchao Float8WeightOnlyConfig: one float32 scale a row, not worth counting; dequantize() before F.linear, which saves it
_FP8_TORCHAO = Scheme(form=Form(bits=8, keeps=True))
# optimum-quanto tensor/qbytes and torchao Int8WeightOnlyConfig: their own autograd functions save the narrow weight
_INT8 = Scheme(form=Form(bits=8))
# optimum-quanto, tensor/function.py: QuantizedLinearFunction saves the input beside the narrow weight, needed or not;
# library/qbytes_mm.py: an 8-bit float is cast before it is scaled, an integer by the scaling (its fused Marlin kernel needs less);
# tensor/weights/qbits.py: groups of 128 with a 16-bit scale and shift
_FP8_QUANTO = Scheme(form=Form(bits=8, copies=2, saves_input=True))
_INT8_QUANTO = Scheme(form=Form(bits=8, saves_input=True))
_INT4_QUANTO, _INT2_QUANTO = (Scheme(form=Form(bits=bits + 32 / 128, copies=2, saves_input=True)) for bits in (4, 2))
# ai-toolkit toolkit/util/uintx_quant.py, torchao's UIntX: a 16-bit scale and an 8-bit zero for each 64 weights; the codes are
# spread to bytes and cast to the weights' dtype before F.linear, which saves them
_UINT = {f"uint{bits}": Scheme(form=Form(bits=bits + 24 / 64, keeps=True, copies=2)) for bits in range(2, 8)}
# ai-toolkit toolkit/util/nvfp4_quant.py: one 8-bit scale for each 16 weights, widened to float32 on the way
_NVFP4 = Scheme(form=Form(bits=4 + 8 / 16, keeps=True, copies=3))
# SimpleTuner helpers/training/quantisation/__init__.py: _quanto_model leaves these of Wan, SD3 and LTX as they are
_SIMPLETUNER = (
    "norm", "^proj_out", "pos_embed", "patch_embedding", "ffn", "context_embedder", "time_text_embed", "time_proj",
    "condition_embedder",
)  # fmt: skip
# sdnq training/layers/linear/forward.py: QuantizedLinearBackwardCKPT; one float32 scale for each 32 weights (SimpleTuner's default)
_INT8_SDNQ = Scheme(form=Form(bits=8 + 32 / 32))
# sdnq training/layers/linear/linear_int8/linear_int8.py, where a whole row has one scale (group_size -1, as SimpleTuner's
# CONVROT.md has it); common.py: common_skip_keys
_INT8_SDNQ_HADAMARD = Scheme(
    form=Form(bits=8, integers=True),
    skip=(
        "^(time_embed|context_embedder|condition_embedder|[xty]_embedder|(proj|emb|txt|img|vid)_(in|out)|norm_out|final_layer)",
        r"(^|\.)(time_text_embed|patch_embedding|patch_embed|patch_emb)\.",
    ),
)
# bitsandbytes autograd/_functions.py: MatMul4Bit saves the narrow weight, widens it in the backward; functional.py: quantize_4bit,
# one float32 for each 64 weights; nested: one byte for each 64, and one float32 for each 256 of those
_NF4 = Scheme(form=Form(bits=4 + 32 / 64))
_NF4_NESTED = Scheme(form=Form(bits=4 + 8 / 64 + 32 / (64 * 256)))
# Layers whose weights wait on the host and come one at a time: SimpleTuner helpers/ramtorch/modules/linear.py, BouncingLinearFn,
# which saves its input whether or not the weight trains
_STREAMED = Scheme(form=Form(bits=0, saves_input=True), blocks_only=True)

BLOCKS = "-blocks"
SCHEMES = {
    "fp8": _FP8,
    "fp8-layerwise": _FP8_LAYERWISE,
    "fp8-scaled": _FP8_SCALED,
    "fp8-torchao": _FP8_TORCHAO,
    "fp8-quanto": _FP8_QUANTO,
    "int8": _INT8,
    "int8-quanto": _INT8_QUANTO,
    "int4-quanto": _INT4_QUANTO,
    "int2-quanto": _INT2_QUANTO,
    "fp8-quanto-simpletuner": replace(_FP8_QUANTO, skip=_SIMPLETUNER),
    "int8-quanto-simpletuner": replace(_INT8_QUANTO, skip=_SIMPLETUNER),
    "int4-quanto-simpletuner": replace(_INT4_QUANTO, skip=_SIMPLETUNER),
    "int2-quanto-simpletuner": replace(_INT2_QUANTO, skip=_SIMPLETUNER),
    "int8-sdnq": _INT8_SDNQ,
    "int8-sdnq-hadamard": _INT8_SDNQ_HADAMARD,
    "nf4": _NF4,
    "nf4-nested": _NF4_NESTED,
    "fp4": _NF4,
    **_UINT,
    "nvfp4": _NVFP4,
}
# The same schemes by the words that trainers use, letters and digits only.
_ALIASES = {
    "fp8base": _FP8,
    "fp8e4m3fn": _FP8,
    "float8": _FP8,
    "float8e4m3fn": _FP8,
    "float8e5m2": _FP8,
    "fp8basescaled": _FP8_SCALED,
    "fp8wo": _FP8_TORCHAO,
    "fp8wotorchao": _FP8_TORCHAO,
    "int8torchao": _INT8,
    "int8wo": _INT8,
    "nf4bnb": _NF4_NESTED,
    "bnbnf4": _NF4,
    "nf4double": _NF4_NESTED,
}


def scheme(name: str) -> Scheme | None:
    """What `precision.quantization` names, or None for "none"; with "-blocks" after it, inside the repeated blocks only.

    Raises ConfigError for what is not modelled.
    """
    if name.endswith(BLOCKS):
        inner = scheme(name.removesuffix(BLOCKS))
        return inner and replace(inner, blocks_only=True)
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    if plain in ("none", ""):
        return None
    found = {re.sub(r"[^a-z0-9]", "", key): value for key, value in SCHEMES.items()}.get(plain) or _ALIASES.get(plain)
    if found is not None:
        return found
    meant = did_you_mean(name, tuple(SCHEMES))
    message = f"Cannot judge: weights quantised as {name!r} are not modelled; expected none, {', '.join(SCHEMES)}."
    fix = f"did you mean {meant}?" if meant else None
    raise ConfigError(Finding(id="unknown-quantization", severity="error", message=message, key="precision.quantization", fix=fix))


def share_on_host(layers: bool | float) -> float:
    """What share of the linear layers `offload.layers` leaves on the host: true is all of them."""
    return float(layers)


def streamed(found: Scheme | None, share: float, dtype: str) -> Scheme:
    """Layers of which such a `share`, spread evenly, waits on the host; the others stay as `found` has them, or in `dtype`."""
    bits = found.form.bits if found is not None else 8 * BYTES[dtype]
    return replace(_STREAMED, form=replace(_STREAMED.form, bits=bits * (1 - share)))


def quantize(network: Network, name: str, dtype: str, *, away: float = 0.0) -> None:
    """Keep the frozen weights of the network's linear layers as `name` says, such a share of them `away` on the host.

    Raises ConfigError for what is not modelled.
    """
    found = scheme(name)
    if away:
        found = streamed(found, away, dtype)
    if found is None:
        return
    layers = list(_linear(network, found))
    if any(layer.weight.requires_grad for layer in layers):
        what, key = ("streamed from the host", "offload.layers") if away else (f"kept as {name!r}", "precision.quantization")
        message = f"Cannot judge: training weights that are {what} is not modelled; expected method lora."
        raise ConfigError(Finding(id="quantized-training", severity="error", message=message, key=key))
    for layer in layers:
        layer.weight = Quantized(layer.weight, found.form)


def _linear(network: Network, found: Scheme) -> Iterator[Linear]:
    inside = {id(module) for block in network.block_modules() for _, module, _ in block.modules()}
    for name, module, _ in network.modules():
        if not isinstance(module, Linear) or (found.blocks_only and id(module) not in inside):
            continue
        if not any(re.search(pattern, name) for pattern in found.skip):
            yield module
