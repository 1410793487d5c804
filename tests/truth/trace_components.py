"""Trace the real text encoders and VAEs without a GPU: `python tests/truth/trace_components.py > tests/truth/components.jsonl`.

With names of components as arguments, those alone are traced.
Needs torch, diffusers and transformers. Each pass runs forward under torch.no_grad with fake tensors; every storage counts from
the operator that makes it until Python drops it, in the caching allocator's 512-byte blocks. Memory inside kernels is not seen.
"""

from __future__ import annotations

import json
import sys
import weakref
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
import yaml
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TABLE = yaml.safe_load((Path(__file__).parent / "component_cases.yaml").read_text(encoding="utf-8"))
COMPONENTS: dict[str, dict[str, Any]] = TABLE["components"]


def sdpa(query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, **options: Any) -> Any:
    """The kernels that a GPU runs: flash attention without a mask, efficient attention with one."""
    causal, scale = options.get("is_causal", False), options.get("scale")
    if attn_mask is None:
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        return flash(query, key, value, dropout_p, causal, False, scale=scale)[0]
    if attn_mask.dtype == torch.bool:
        attn_mask = torch.empty(attn_mask.shape, dtype=query.dtype)
    attn_mask = attn_mask.expand(*query.shape[:3], key.shape[2])
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    return efficient(query, key, value, attn_mask, True, dropout_p, causal, scale=scale)[0]


class Tracker(TorchDispatchMode):  # type: ignore[misc, unused-ignore]
    """Live bytes, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.seen: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def add(self, tensor: Any) -> None:
        if not isinstance(tensor, torch.Tensor) or tensor.untyped_storage() in self.seen:
            return
        storage = tensor.untyped_storage()
        nbytes = -(-storage.nbytes() // 512) * 512
        self.seen[storage] = nbytes
        self.live += nbytes
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self.drop, nbytes)

    def drop(self, nbytes: int) -> None:
        self.live -= nbytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            self.add(tensor)
        return result


def build(component: str) -> Any:
    """The real module, without memory."""
    facts = COMPONENTS[component]
    cls = getattr(import_module("diffusers" if "stride" in facts else "transformers"), facts["class"])
    with torch.device("meta"):
        return cls(**facts["config"]) if "stride" in facts else cls(cls.config_class(**facts["config"]))


def load(module: Any, dtype: torch.dtype) -> None:
    """Give every parameter and buffer fake memory; what is tied stays tied."""
    loaded: dict[int, Any] = {}
    for part in module.modules():
        for name, tensor in part._parameters.items():
            if tensor is not None:
                new = torch.nn.Parameter(torch.empty(tensor.shape, dtype=dtype), requires_grad=False)
                part._parameters[name] = loaded.setdefault(id(tensor), new)
        for name, tensor in part._buffers.items():
            if tensor is not None:
                part._buffers[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
    module.eval()


def run(module: Any, row: dict[str, Any]) -> None:
    """One pass; what it returns is dropped."""
    if "stride" in COMPONENTS[row["component"]]:
        run_vae(module, row)
    else:
        run_encoder(module, row)


def run_encoder(module: Any, row: dict[str, Any]) -> None:
    facts, batch = COMPONENTS[row["component"]], row["batch"]
    options = facts.get("options", {})
    if "pixels" in facts:
        module(pixel_values=torch.empty(batch, 3, facts["pixels"], facts["pixels"], dtype=DTYPES[row["dtype"]]), **options)
        return
    ids = torch.zeros(batch, row["tokens"] + facts.get("template", 0), dtype=torch.long)
    masks = {"attention_mask": torch.ones_like(ids)} if facts.get("masked", True) else {}
    module(input_ids=ids, **masks, **options)


def run_vae(module: Any, row: dict[str, Any]) -> None:
    frames, pixels, channels = COMPONENTS[row["component"]]["stride"]
    dtype, batch = DTYPES[row["dtype"]], row["batch"]
    size: tuple[int, ...] = (row["height"], row["width"])
    if row["pass"] == "decode":
        size = tuple(n // pixels for n in size)
    if frames > 1:
        size = ((row["frames"] - 1) // frames + 1 if row["pass"] == "decode" else row["frames"], *size)
    if row["pass"] == "decode":
        module.decode(torch.empty((batch, channels, *size), dtype=dtype))
        return
    encoded = module.encode(torch.empty((batch, 3, *size), dtype=dtype))
    if hasattr(encoded, "latent_dist"):
        encoded.latent_dist.sample()


def trace(row: dict[str, Any]) -> dict[str, Any]:
    """`row` with what was measured."""
    module = build(row["component"])
    parameters = sum(p.numel() for p in module.parameters())
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        load(module, DTYPES[row["dtype"]])
        for option in ("use_tiling", "use_slicing"):
            if row.get(option):
                setattr(module, option, True)
        tracker = Tracker()
        for tensor in [*module.parameters(), *module.buffers()]:
            tracker.add(tensor)
        weights = tracker.live
        with tracker:
            run(module, row)
    measured = {"parameters": parameters, "weights_gib": round(weights / 2**30, 6), "peak_gib": round(tracker.peak / 2**30, 6)}
    versions = {name: import_module(name).__version__ for name in ("diffusers", "transformers", "torch")}
    return {**row, **measured, "versions": versions}


def cases() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for component, dtype, shapes, *option in TABLE["vae_cases"]:
        for batch, height, width, frames in shapes:
            size = {"batch": batch, "height": height, "width": width, "frames": frames, "dtype": dtype}
            options = dict.fromkeys(option, True)
            rows.extend({"component": component, "pass": name, **size, **options} for name in ("encode", "decode"))
    for component, dtype, prompts in TABLE["text_cases"]:
        rows.extend({"component": component, "pass": "encode", "batch": b, "tokens": n, "dtype": dtype} for b, n in prompts)
    return [{"id": f"component-{number:03d}", **row} for number, row in enumerate(rows, 1)]


if __name__ == "__main__":
    F.scaled_dot_product_attention = sdpa
    for case in cases():
        if sys.argv[1:] and case["component"] not in sys.argv[1:]:
            continue
        print(json.dumps(trace(case)), flush=True)
