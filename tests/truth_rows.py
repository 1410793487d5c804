"""Rows of `tests/truth/traces.jsonl` as canonical specs: real networks traced by torch, one steady training step each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TRACES = Path(__file__).parent / "truth" / "traces.jsonl"

Row = Mapping[str, Any]

_IDS = {
    "hunyuandit-g2": "hunyuandit-v{version}-g2",
    "hunyuandit-xl2": "hunyuandit-v{version}-xl2",
    "ltx-2b": "ltx-video-2b",
    "flux-dev": "flux.1-dev",
    "unet-ddpm": "diffusers-unet2d",
    "fno": "neuralop-fno",
}
_TEXT_TOKENS = {"wan": 512, "flux": 512, "hunyuanvideo": 256, "cogvideox": 226, "ltx": 128, "sd3": 333}


def rows() -> list[Row]:
    """Every traced step."""
    return [json.loads(line) for line in TRACES.read_text(encoding="utf-8").splitlines()]


def family(row: Row) -> str:
    """The word a table of results groups this row under."""
    if isinstance(row["model"], Mapping):
        return "diffsr"
    return str(row["model"]).split("-")[0].rstrip("12.")


def spec(row: Row) -> dict[str, Any]:
    """The canonical spec of the traced step."""
    return _diffsr(row) if isinstance(row["model"], Mapping) else _network(row)


def _diffsr(row: Row) -> dict[str, Any]:
    dims = {**row["model"], "sample_factor": row["sample_factor"]}
    name = "diffsr-" + dims.pop("name").lower().replace("_", "-")
    height, width = row["shape"]
    return {
        "preflight": 1,
        "model": {"name": name, "dims": dims},
        "train": {"method": "full", "batch": row["batch"], "optimizer": {"name": row["optimizer"].lower(), "bits": 32}},
        "data": {"height": height, "width": width},
        "precision": {"weights": "fp32", "autocast": None},
    }


def _network(row: Row) -> dict[str, Any]:
    train: dict[str, Any] = {
        "method": row["task"],
        "batch": row["batch"],
        "checkpointing": row["checkpointing"],
        "optimizer": {"name": "adamw", "bits": 32},
    }
    if row.get("use_reentrant"):
        train["use_reentrant"] = True
    if row["task"] == "lora":
        targets = row.get("targets", ["to_q", "to_k", "to_v", "to_out.0"])
        dtype = row.get("trainable_dtype") or row["weights_dtype"]
        train["lora"] = {"rank": row["rank"], "alpha": row["rank"], "targets": targets, "dtype": dtype}
        train["lora"]["code"] = row.get("lora_code")
    data = {"height": row["height"], "width": row["width"], "frames": row.get("frames", 1)}
    tokens = row.get("text_tokens") or next((n for word, n in _TEXT_TOKENS.items() if row["model"].startswith(word)), None)
    if tokens is not None:
        data["text_tokens"] = tokens
    name = str(_IDS.get(row["model"], row["model"])).format(version=row.get("version", "1.2"))
    return {
        "preflight": 1,
        "model": {"name": name, "code": row.get("code"), "dims": row.get("arch") or {}},
        "train": train,
        "data": data,
        "precision": {"weights": row["weights_dtype"], "autocast": row.get("autocast")},
        "offload": {"activations": "saved" if row.get("offload_activations") else False},
    }
