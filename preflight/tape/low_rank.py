"""LoRA adapters as ai-toolkit runs them: what an adapter adds is scaled and narrowed by itself, and added last.

toolkit/network_mixins.py of ostris/ai-toolkit: ToolkitModuleMixin.forward and _call_forward.
"""

from __future__ import annotations

from collections.abc import Callable

from preflight.tape import linear as ops
from preflight.tape.tensor import Tensor

Product = Callable[[Tensor, Tensor], Tensor]


def adapted(x: Tensor, base: Tensor, down: Tensor, up: Tensor, product: Product) -> Tensor:
    """`base` and what the adapter adds for x, in base's dtype; lora_output is a name that lives until both are added."""
    output = ops.linear(product(x.to(down.dtype), down), up) * 1.0
    scaled = output * 1.0
    scaled = scaled.to(base.dtype)
    return base + scaled
