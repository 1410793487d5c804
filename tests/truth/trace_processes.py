"""Trace steps of DistributedDataParallel and DeepSpeed's stage 3 in processes that talk: small networks, real tensors on the CPU.

    python -m tests.truth.trace_processes < tests/truth/parallel.jsonl

writes the rows of `ddp` without sequence parallelism and of `zero3` again, rank 0's; a case needs no figures. Of ddp, whose buckets
C++ makes, every allocation of the CPU's allocator counts, by torch's profiler; of zero3 every tensor, until Python drops it: its
buffers die in threads that the profiler does not see. Needs torch, diffusers and peft, and for zero3 deepspeed (0.19.6).
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import diffusers
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from torch.profiler import ProfilerActivity, profile, record_function

from tests.truth.trace_networks import Tracker, tensors, up
from tests.truth.trace_parallel import counts

Case = dict[str, Any]
Pass = Callable[..., Any]

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
STAGE3 = ("prefetch_bucket_size", "param_persistence_threshold", "max_live_parameters", "max_reuse_distance")
F.scaled_dot_product_attention = torch._C._nn.scaled_dot_product_attention  # the CPU's own, for real tensors
PARTS = ("forward", "backward", "optimizer")
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
WAN = {"patch_size": (1, 2, 2), "attention_head_dim": 128, "in_channels": 16, "out_channels": 16, "text_dim": 4096}
WAN |= {"freq_dim": 256, "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads"}


def network_of(c: Case) -> Any:
    torch.manual_seed(0)
    dtype = DTYPES[c["weights_dtype"]]
    network = diffusers.WanTransformer3DModel(**{**WAN, **c["dims"]}).to(dtype)
    if c["task"] == "lora":
        from peft import LoraConfig, inject_adapter_in_model

        network.requires_grad_(False)
        inject_adapter_in_model(LoraConfig(r=c["rank"], lora_alpha=c["rank"], target_modules=TARGETS), network)
        network.to(dtype)
    if c.get("checkpointing"):
        network.enable_gradient_checkpointing()
    return network.train()


def forward_of(c: Case, run: Any) -> Pass:
    dtype, b = DTYPES[c["weights_dtype"]], c["batch"]
    frames, h, w = (c["frames"] - 1) // 4 + 1, c["height"] // 8, c["width"] // 8

    def forward() -> Any:
        latents, text = torch.empty(b, 16, frames, h, w, dtype=dtype), torch.empty(b, 512, 4096, dtype=dtype)
        out = run(latents, torch.ones(b, dtype=torch.long), text, return_dict=False)[0]
        return F.mse_loss(out.float(), torch.empty(*out.shape))

    return forward


def ddp(c: Case, network: Any) -> tuple[Pass, Pass, Pass]:
    wrapped = torch.nn.parallel.DistributedDataParallel(network)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-4, foreach=True)

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return forward_of(c, wrapped), lambda loss: loss.backward(), update


def zero3(c: Case, network: Any) -> tuple[Pass, Pass, Pass]:
    """The engine as a trainer makes it, with torch's AdamW in the place of FusedAdam."""
    deepspeed = import_module("deepspeed")

    named = {f"stage3_{name}" if name in STAGE3 else name: value for name, value in c["zero"].items()}
    settings: Case = {"train_micro_batch_size_per_gpu": c["batch"], "zero_allow_untested_optimizer": True}
    settings |= {
        "bf16": {"enabled": c["weights_dtype"] == "bf16"},
        "zero_optimization": {"stage": 3, **named},
    }
    trained = [p for p in network.parameters() if p.requires_grad]
    engine, *_ = deepspeed.initialize(
        model=network, optimizer=torch.optim.AdamW(trained, lr=1e-4, fused=True), config=settings, dist_init_required=False
    )
    return forward_of(c, engine), engine.backward, engine.step


def figures(c: Case) -> Case:
    """What the third step needs of all that was made since before the network was."""
    counting = {"ddp": _profiled, "zero3": _tracked}[c["strategy"]]
    counted, weights, made = counting(c)
    shown = {"weights_gib": weights, **{f"{name}_gib": size for name, size in made.items()}}
    shown["peak_gib"] = max(made[f"{part}_peak"] for part in PARTS)
    return {**{name: round(size / 2**30, 4) for name, size in shown.items()}, **counted}


def _profiled(c: Case) -> tuple[Case, int, dict[str, int]]:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        network = network_of(c)
        counted = counts(network)
        forward, backward, update = ddp(c, network)
        for _ in range(3):
            with record_function("forward"):
                loss = forward()
            with record_function("backward"):
                backward(loss)
                del loss
            with record_function("optimizer"):
                update()
    return counted, _weights(network), _measured(recorded.profiler.kineto_results)


def _tracked(c: Case) -> tuple[Case, int, dict[str, int]]:
    tracker, made = Tracker(), dict[str, int]()
    with tracker:
        network = network_of(c)
        for x in tensors(network):
            tracker.add(x)
        counted = counts(network)
        forward, backward, update = zero3(c, network)
        gc.collect()
        for _ in range(3):
            tracker.peaks.clear()
            tracker.mark = "forward_peak"
            loss = forward()
            made["after_forward"] = tracker.live
            tracker.mark = "backward_peak"
            backward(loss)
            del loss
            made["after_backward"] = tracker.live
            tracker.mark = "optimizer_peak"
            update()
            made["after_optimizer"] = tracker.live
    return counted, _weights(network), {**made, **tracker.peaks}


def _weights(network: Any) -> int:
    return sum(up(x.numel() * x.element_size()) for x in (getattr(x, "ds_tensor", x) for x in tensors(network)))


def _measured(found: Any) -> dict[str, int]:
    """Live bytes as each part of the last step ends, and its peak."""
    spans: dict[str, tuple[int, int]] = {}
    for event in found.events():
        if event.name() in PARTS and event.start_ns() > spans.get(event.name(), (0, 0))[0]:
            spans[event.name()] = event.start_ns(), event.end_ns()
    live: dict[int, int] = {}
    total, out = 0, {}
    for time, pointer, size in sorted(_changes(found.experimental_event_tree())):
        for part, (_, end) in spans.items():
            if time > end and f"after_{part}" not in out:
                out[f"after_{part}"] = total
        if size > 0:
            live[pointer] = up(size)
            total += up(size)
        else:
            total -= live.pop(pointer, 0)
        for part, (start, end) in spans.items():
            if start <= time <= end:
                out[f"{part}_peak"] = max(out.get(f"{part}_peak", 0), total)
    out.setdefault("after_optimizer", total)
    return out


def _changes(nodes: Any) -> Iterator[tuple[int, int, int]]:
    for node in nodes:
        if node.name == "[memory]":
            yield node.start_time_ns, node.extra_fields.ptr, node.extra_fields.alloc_size
        yield from _changes(node.children)


def _rank(rank: int, ranks: int, meeting: str) -> None:
    torch.set_num_threads(1)
    os.environ.update({"DS_ACCELERATOR": "cpu", "LOCAL_RANK": str(rank), "RANK": str(rank), "WORLD_SIZE": str(ranks)})
    os.environ["LOCAL_SIZE"] = str(ranks)
    dist.init_process_group("gloo", store=dist.FileStore(meeting, ranks), rank=rank, world_size=ranks)
    c = json.loads(sys.stdin.readline())
    with contextlib.redirect_stdout(sys.stderr):
        found = figures(c)
    if rank == 0:
        kept = {name: value for name, value in c.items() if not name.endswith(("_gib", "parameters"))}
        print(json.dumps({**kept, **found}), flush=True)


def main() -> None:
    if len(sys.argv) > 1:
        _rank(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
        return
    for line in sys.stdin:
        c = json.loads(line)
        if c["strategy"] not in ("ddp", "zero3") or c.get("sequence", 1) > 1:
            continue
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "tests.truth.trace_processes"]
            running = [
                subprocess.Popen([*command, str(rank), str(c["gpus"]), f"{folder}/store"], stdin=subprocess.PIPE, text=True)
                for rank in range(c["gpus"])
            ]
            for process in running:
                assert process.stdin is not None
                process.stdin.write(line)
                process.stdin.close()
            assert not any(process.wait() for process in running)


if __name__ == "__main__":
    main()
