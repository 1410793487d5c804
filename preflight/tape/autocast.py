"""Casts that autocast inserts (aten/src/ATen/autocast_mode.cpp)."""

from __future__ import annotations

from preflight.tape.dtypes import LOW
from preflight.tape.tensor import Parameter, Tensor

_CASTABLE = LOW | {"fp32"}


def lower(x: Tensor) -> Tensor:
    """`x` as matmuls, convolutions and attention take it; a trainable fp32 leaf's cast is cached until the context ends."""
    tape = x.tape
    if tape.autocast is None or x.dtype == tape.autocast or x.dtype not in _CASTABLE:
        return x
    if not (isinstance(x, Parameter) and x.requires_grad and x.dtype == "fp32"):
        return x.to(tape.autocast)
    if x not in tape.casts:
        cast = x.to(tape.autocast)
        assert cast.storage is not None
        cast.storage.keep()
        tape.casts[x] = cast
    return tape.casts[x]


def upper(x: Tensor) -> Tensor:
    """`x` as normalisations and losses take it: float32 while autocast is on."""
    return x.to("fp32") if x.tape.autocast is not None and x.dtype in LOW else x
