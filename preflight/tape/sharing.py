"""How several GPUs share the tokens of each sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Code = Literal["yunchang", "diffusers", "torch"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharing:
    """`ranks` GPUs share each sample's tokens: groups of `ring` pass keys and values on, so many groups exchange heads."""

    ranks: int = 1
    ring: int = 1
    code: Code = "yunchang"

    @property
    def groups(self) -> int:
        """How many parts attention's heads are divided into."""
        return self.ranks // self.ring
