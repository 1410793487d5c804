"""Rows of `tests/truth/measured.jsonl` as canonical specs: published figures with the configs they were taken from.

How a trainer runs its network is a choice of the spec here, each with where it says so; nothing is a factor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

MEASURED = Path(__file__).parent / "truth" / "measured.jsonl"

Row = Mapping[str, Any]
Column = Literal["allocated", "reserved", "first", "resident", "forward", "text"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """`spec` of the run, which of our figures the published one is, and whether it is only an upper bound of it.

    `first`: what is reserved after one optimizer step, before any forward pass has found states there.
    """

    spec: dict[str, Any]
    column: Column
    gpu: str
    bound: bool = False


def rows() -> list[Row]:
    """Every published figure."""
    return [json.loads(line) for line in MEASURED.read_text(encoding="utf-8").splitlines()]


def judged() -> list[Row]:
    """Rows of grade A that are there to be met, or to bound: those masked, and those that ran out of memory."""
    return [row for row in rows() if row["confidence"] == "A" and (row["masked"] or row["eval_use"].startswith("primary"))]


UNREACHED = {
    # our tensors are those of a trace of LyCORIS' own code (test_truth_measured.py), and without checkpoints the figure is met
    "st-sdxl-bf16-layer": "SDXL's LoKr with checkpoints took 0.9 GiB more than a trace of the same code has tensors.",
    "st-sdxl-int8-layer": "SDXL's LoKr with checkpoints and int8 weights took 0.8 GiB more, as it did in bfloat16.",
    # one step was measured, as of the other full runs (ours 33.0 GiB), yet more was reserved; a second step would need 44.7
    "cvf-full-2b-gc-adamw-b4": "A full run of CogVideoX-2B lies between what its first and its later steps reserve, as tested.",
}
"""Rows that are not met, and why."""

BRACKETED = "cvf-full-2b-gc-adamw-b4"


def case(row: Row) -> Case | None:
    """The row as a spec, or None where UNREACHED says why not."""
    if row["id"] in UNREACHED:
        return None
    return _TRAINERS[str(row["id"]).split("-", 1)[0]](row)


def _spec(name: str, row: Row, train: dict[str, Any], precision: dict[str, Any], **parts: Any) -> dict[str, Any]:
    height, width = row["resolution"]
    return {
        "preflight": 1,
        "model": {"name": name, **parts.pop("model", {})},
        "train": {"batch": row["batch_per_gpu"], **train},
        "data": {"height": height, "width": width, "frames": row["frames"], **parts.pop("data", {})},
        "precision": precision,
        **parts,
    }


def cogvideox_factory(row: Row) -> Case:
    """training/cogvideox/cogvideox_text_to_video_{lora,sft}.py; the scripts' --mixed_precision runs the forward under autocast.

    peft raises adapters in a low-precision network to float32 (tuners_utils.py: cast_adapter_dtype); the trained weights of a full
    run are float32, as the figures before training show. The table's figures are max_memory_reserved.

    Those of full runs whose states are on the card were taken after one step: with 8-bit states at batch 4 they are those of the
    run whose states are on the host (27.93 and 27.92 GiB for 2B, 66.65 and 66.61 for 5B), where 5B's states alone are 10.4.
    """
    name = "cogvideox-2b" if "2b" in row["model"] else "cogvideox-5b"
    low = "fp16" if name == "cogvideox-2b" else "bf16"
    lora = {"lora": {"rank": row["rank"], "dtype": "fp32"}} if row["task"] == "lora" else {}
    train = {
        "method": row["task"],
        **lora,
        "checkpointing": row["grad_checkpointing"],
        "optimizer": {"name": "adamw8bit" if "8bit" in row["optimizer"] else "adamw"},
    }
    precision = {"weights": low if lora else "fp32", "autocast": low, "attention": low}
    offload = {"optimizer": "CPUOffload" in row["optimizer"]}
    first = not lora and not offload["optimizer"] and row.get("figure") is not None
    column: Column = "first" if first else "reserved"
    bound = row["masked"] and not first  # 16.447 was reached in training: it is not the 16.396 before it
    return Case(spec=_spec(name, row, train, precision, offload=offload), column=column, gpu="a100-80gb", bound=bound)


_FINETRAINERS = {"LTX": "ltx-video-2b", "Hun": "hunyuanvideo", "Cog": "cogvideox-5b"}


def _finetrainers(row: Row) -> Case:
    """finetrainers/trainer.py: weights, adapters and states in bfloat16, no autocast; T5 is on the card only while it encodes."""
    name = _FINETRAINERS[row["model"].split("/")[1][:3]]
    lora = {"lora": {"rank": row.get("rank", 1), "dtype": "bf16"}} if row["task"] != "full" else {}
    train = {
        "method": "lora" if lora else "full",
        **lora,
        "checkpointing": row["grad_checkpointing"],
        "optimizer": {"name": "adamw"},
    }
    fp8 = "fp8" in str(row["base_quant"])
    precision = {"weights": "bf16", "quantization": "fp8-layerwise" if fp8 else "none"}
    if "precompute" in row["task"]:
        return Case(spec=_spec(name, row, train, precision), column="text", gpu="a100-80gb")
    column: Column = "resident" if "state-only" in row["eval_use"] else "reserved" if "reserved" in row["measures"] else "allocated"
    return Case(spec=_spec(name, row, train, precision), column=column, gpu="a100-80gb", bound=row["masked"])


_SIMPLETUNER = {
    "wan21t2v13b": "wan2.1-t2v-1.3b",
    "wan21t2v14b": "wan2.1-t2v-14b",
    "ltxvideo095": "ltx-video-2b",
    "sd3": "sd3-medium",
    "sd1x": "sd1.5",
    "sdxl": "sdxl",
    "qwenimage": "qwen-image",
    "hidream": "hidream-i1",
    "lumina2": "lumina-image-2.0",
}
_SEGMENTS: dict[str, Any] = {
    "none": False,
    "layer": True,
    "interval2": {"every": 2},
    "seg2-stride4": {"every": 2, "stride": 4},
}
# simpletuner/examples/sdxl.lycoris-lokr/lycoris_config.json: linear_dim, factor, and Attention alone, with bypass_mode
_LOKR = {"rank": 10_000, "factor": 12}
# transformer/config.json of stabilityai/stable-diffusion-3.5-medium, as its derivatives on the Hugging Face Hub repeat it
_SD35_MEDIUM = {"dual_attention_layers": list(range(13)), "qk_norm": "rms_norm", "pos_embed_max_size": 384}


def simpletuner(row: Row) -> Case:
    """documentation/experimental/SEGMENTED_CHECKPOINTING.md, with the configs of simpletuner/examples.

    Everything is bfloat16 and the forward runs under accelerate's autocast. RamTorch keeps the blocks' weights on the host.
    """
    _, family, quantization, mode = str(row["id"]).split("-", 3)
    lora = {"rank": row["rank"], "dropout": 0.1} if "rank" in row else _LOKR
    train = {
        "method": "lora",
        "lora": {**lora, "dtype": "bf16"},
        "checkpointing": _SEGMENTS[mode],
        "optimizer": {"name": "adamw_bf16"},
    }
    words = {"bf16": "none", "int8": "int8-sdnq-hadamard", "fp8wo": "fp8-torchao"}  # int8: documentation/experimental/CONVROT.md
    streamed = "RamTorch" in str(row["offloads"])
    precision = {
        "weights": "bf16",
        "autocast": "bf16",
        "attention": "bf16",
        # its Wan is built from diffusers' Attention, whose norms are diffusers' own class
        "norms": "plain" if family.startswith("wan") else "composite",
        "quantization": "none" if streamed else words[quantization],
    }
    parts: dict[str, Any] = {"offload": {"layers": streamed}}
    if family == "hidream":
        train["lora"]["targets"] = ["to_q", "to_k", "to_v"]  # to_out.0 is one of the defaults, and to_out there no list
        train["optimizer"] = {"name": "optimi-lion"}
    if family == "qwenimage":
        # an instance prompt of one character, of three tokens, and the five of the template that are left behind it
        # (helpers/models/qwen_image/pipeline.py: prompt_template_encode); nothing is padded
        train["optimizer"] = {"name": "optimi-lion"}
        parts["data"] = {"text_tokens": 8}
    if family == "lumina2":
        # its system prompt and an instance prompt of one character (helpers/models/lumina2/model.py: SYSTEM_PROMPT); padding
        # is cut off before text meets image
        parts["data"] = {"text_tokens": 33}
    if family == "sd3":
        parts["model"] = {"dims": _SD35_MEDIUM}
    return Case(spec=_spec(_SIMPLETUNER[family], row, train, precision, **parts), column="allocated", gpu="h100-80gb")


def _diffusers_benchmark(row: Row) -> Case:
    """benchmarks/benchmarking_{flux,sdxl}.py: one forward pass of the transformer under no_grad, its weights loaded."""
    precision = {"weights": "bf16", "quantization": "nf4" if "nf4" in row["base_quant"] else "none"}
    train = {"method": "lora", "lora": {"rank": 1, "targets": ["to_q"], "dtype": "bf16"}}
    name = "sdxl" if "SDXL" in row["model"] else "flux.1-dev"
    return Case(spec=_spec(name, row, train, precision), column="forward", gpu="a100-80gb")


_TRAINERS = {
    "cvf": cogvideox_factory,
    "ft": _finetrainers,
    "st": simpletuner,
    "dfb": _diffusers_benchmark,
}
