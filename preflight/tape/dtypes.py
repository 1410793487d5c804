"""Element types: their sizes in bytes, and the type two of them meet in."""

from __future__ import annotations

BYTES = {
    "bool": 1,
    "uint8": 1,
    "fp8": 1,
    "fp16": 2,
    "bf16": 2,
    "fp32": 4,
    "fp64": 8,
    "int64": 8,
    "complex64": 8,
    "complex128": 16,
}
# torch/csrc c10/core/ScalarType.h: promoteTypes; categories bool < integer < floating < complex, and bf16 with fp16 is fp32
_RANK = {"bool": 0, "uint8": 1, "int64": 2, "fp16": 3, "bf16": 3, "fp32": 4, "fp64": 5, "complex64": 6, "complex128": 7}
LOW = frozenset({"bf16", "fp16"})


def promote(a: str, b: str) -> str:
    """The dtype of `a + b` for two tensors of at least one dimension."""
    if a == b:
        return a
    if _RANK[a] == _RANK[b]:
        return "fp32"
    return a if _RANK[a] > _RANK[b] else b
