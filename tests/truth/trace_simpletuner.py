"""SimpleTuner's own LTX-2 network for trace_parallel.py, from the folder of its sources that SIMPLETUNER names (commit bc8e6ab).

diffusers' _cp_plan of LTX-2 leaves the audio whole; this one cuts both streams.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from typing import Any

import torch

from tests.truth.trace_networks import Built, Case, e, loss, ones

PACKAGES = ("", ".helpers", ".helpers.models", ".helpers.models.ltxvideo2", ".helpers.training", ".helpers.training.grounding")
DIMS = {"rope_type": "split", "gated_attn": True, "cross_attn_mod": True, "audio_gated_attn": True, "audio_cross_attn_mod": True}
DIMS |= {"use_prompt_embeddings": False, "perturbed_attn": True}


def ltx2(c: Case) -> Built:
    """LTX-2.3: one timestep a sample, masks of ones over the texts, audio as long as the video at 24 frames a second."""
    dims: Case = {**DIMS, **c.get("dims", {})}
    dims.pop("token_timesteps", None)  # our own word for how a trainer calls it
    b, text, ranks = c["batch"], c["text_tokens"], c["sequence"]
    frames, h, w = (c["frames"] - 1) // 8 + 1, c["height"] // 32, c["width"] // 32
    tokens, audio = frames * h * w, (c["frames"] * 25 + 12) // 24
    audio += -audio % ranks  # model.py: _pad_ltx2_audio_sequence_for_cp

    def step(m: Any, dt: Any) -> Any:
        video, sound = m(
            e(b, tokens, 128, dtype=dt),
            e(b, audio, 128, dtype=dt),
            e(b, text, 4096, dtype=dt),
            e(b, text, 2048, dtype=dt),
            ones(b),
            sigma=e(b, dtype=torch.float32),
            encoder_attention_mask=ones(b, text),
            audio_encoder_attention_mask=ones(b, text),
            num_frames=frames,
            height=h,
            width=w,
            audio_num_frames=audio,
            return_dict=False,
        )
        return loss(video) + loss(sound)

    return lambda: _module().LTX2VideoTransformer3DModel(**dims), step, tokens


def _module() -> Any:
    """The network's module, past the packages' own __init__, which import the whole trainer."""
    for name in PACKAGES:
        package = types.ModuleType(f"simpletuner{name}")
        package.__path__ = [f"{os.environ['SIMPLETUNER']}/simpletuner{name.replace('.', '/')}"]
        sys.modules.setdefault(package.__name__, package)
    own = sys.modules["simpletuner.helpers.models.ltxvideo2"]
    own.ltx2_rope_freqs_dtype = lambda double, _device: torch.float64 if double else torch.float32  # type: ignore[attr-defined]
    return importlib.import_module("simpletuner.helpers.models.ltxvideo2.transformer")
