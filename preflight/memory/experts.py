"""A network of two experts, of which each step runs one: Wan2.2's A14B, for high noise and for low.

ai-toolkit extensions_built_in/diffusion_models/wan22/wan22_14b_model.py (DualWanTransformer3DModel) and musubi-tuner
wan_train_network.py (swap_high_low_weights). Both experts train, by adapters of their own or by one that both share; a step leaves
gradients of the one it ran.
"""

from __future__ import annotations

from preflight.spec import Spec

EXPERTS = 2


def on_gpu(spec: Spec) -> int:
    """How many experts' weights are on the GPU at once."""
    return EXPERTS if spec.model.experts == "both" else 1


def on_host(spec: Spec) -> int:
    """How many experts' weights wait on the host."""
    return EXPERTS - 1 if spec.model.experts == "swapped" else 0


def trained(spec: Spec) -> int:
    """How many experts the optimizer has states and adapters of; the weights of a swapped one leave, its states stay."""
    if spec.model.experts == "one" or (spec.train.lora is not None and spec.train.lora.shared):
        return 1
    return EXPERTS
