"""Trace one rank's steps under fsdp1, zero1, zero2 and sequence parallelism, without a GPU and without its peers.

    python -m tests.truth.trace_parallel < tests/truth/parallel.jsonl

writes every row again that is not of `ddp` or `zero3` (trace_processes.py makes those); a case needs no figures. Fake tensors on
torch's fake process group, real networks and real sharding code. Needs torch, diffusers and peft, and DeepSpeed's rows deepspeed
(0.19.6), LTX-2's the sources of SimpleTuner. One process traces one number of GPUs: this one starts itself again for each.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.fsdp._runtime_utils as fsdp_runtime
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.fsdp import BackwardPrefetch, FullyShardedDataParallel, MixedPrecision, ShardingStrategy
from torch.distributed.fsdp._flat_param import FlatParamHandle
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.testing._internal.distributed.fake_pg import FakeStore

from tests.truth import trace_sequence, trace_simpletuner
from tests.truth.trace_networks import BLOCKS, DTYPES, FAMILIES, Case, Tracker, fake, prepare, tensors, up

FIGURES = [f"after_{part}" for part in ("forward", "backward", "optimizer")]
FIGURES = ["weights", *FIGURES, "peak", "forward_peak", "backward_peak", "optimizer_peak"]
PREFETCH = {"pre": BackwardPrefetch.BACKWARD_PRE, "post": BackwardPrefetch.BACKWARD_POST, "none": None}
BUCKET = 500_000_000  # DeepSpeed's default, in elements


def _catch_all(state: Any) -> None:
    """torch's own, with storages compared: fake tensors have no addresses."""
    handle = state._handle
    if handle is None:
        return
    flat = handle.flat_param
    if flat.untyped_storage()._cdata != flat._local_shard.untyped_storage()._cdata:
        fsdp_runtime._reshard(state, handle, fsdp_runtime._should_free_in_backward(state, handle))


fsdp_runtime._catch_all_reshard = _catch_all
FlatParamHandle._writeback_orig_params = lambda _self: False  # it compares addresses, and nothing is changed from outside


class Steps:
    """Two steps below the tracker; what the second one, like all that follow, needs."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker, self.figures = tracker, {"weights": tracker.live}

    def run(self, forward: Callable[[], Any], backward: Callable[[Any], None], update: Callable[[], None]) -> Case:
        tracker, figures = self.tracker, self.figures
        with tracker:
            for _ in range(2):
                tracker.peaks.clear()
                tracker.mark = "forward_peak"
                loss = forward()
                figures["after_forward"] = tracker.live
                tracker.mark = "backward_peak"
                backward(loss)
                del loss
                figures["after_backward"] = tracker.live
                tracker.mark = "optimizer_peak"
                update()
                figures["after_optimizer"] = tracker.live
        figures |= tracker.peaks
        figures["peak"] = max(tracker.peaks.values())
        return {f"{name}_gib": round(figures[name] / 2**30, 4) for name in FIGURES}


def counts(network: Any) -> Case:
    parameters = list(network.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    return {"parameters": sum(p.numel() for p in parameters), "trainable_parameters": trained}


def fsdp1(c: Case) -> Case:
    """FullyShardedDataParallel, each block a unit, or the network one."""
    network, step, tokens = prepare(c)
    counted, compute = counts(network), c.get("param_dtype")
    policy = MixedPrecision(param_dtype=DTYPES[compute], reduce_dtype=DTYPES[c.get("reduce_dtype", "fp32")]) if compute else None
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake(network, DTYPES[c["weights_dtype"]])
        blocks = {type(block) for name in BLOCKS for block in getattr(network, name, [])}
        reshards = c.get("reshard_after_forward", True)
        sharded = FullyShardedDataParallel(
            network,
            auto_wrap_policy=ModuleWrapPolicy(blocks) if c.get("wrap", "blocks") == "blocks" else None,
            mixed_precision=policy,
            backward_prefetch=PREFETCH[c.get("backward_prefetch", "pre")],
            forward_prefetch=c.get("forward_prefetch", False),
            use_orig_params=c.get("use_orig_params", True),
            sharding_strategy=ShardingStrategy.FULL_SHARD if reshards else ShardingStrategy.SHARD_GRAD_OP,
            device_id=torch.device("cpu"),
        )
        tracker = Tracker()
        for module in FullyShardedDataParallel.fsdp_modules(sharded):
            if module._handle:
                tracker.add(module._handle.flat_param)
        return {"tokens": tokens, **_adamw(c, sharded, step, tracker), **counted}


def sequence(c: Case) -> Case:
    """Whole weights, each sample's tokens shared between `sequence` GPUs."""
    network, step, tokens = prepare(c, {**FAMILIES, "ltx-2.3": trace_simpletuner.ltx2})
    counted, ranks, ring, code = counts(network), c["sequence"], c.get("ring", 1), c.get("sequence_code", "yunchang")
    if code == "diffusers":
        trace_sequence.context_parallel(network, ring, ranks // ring, "_native_flash" if ring > 1 else "native")
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake(network, DTYPES[c["weights_dtype"]], DTYPES.get(c.get("trainable_dtype", "")))
        if code == "diffusers":
            pass
        elif c["model"].startswith("hunyuanvideo"):
            trace_sequence.fastvideo(network, ranks)
        else:
            trace_sequence.yunchang(network, ranks)
        return {"tokens": tokens, **_adamw(c, network, step, Tracker()), **counted}


def _adamw(c: Case, network: Any, step: Any, tracker: Tracker) -> Case:
    for x in tensors(network):
        tracker.add(x)
    autocast, dtype = c.get("autocast"), DTYPES[c.get("autocast") or c.get("param_dtype") or c["weights_dtype"]]
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-4, foreach=True)

    def forward() -> Any:
        with torch.autocast("cpu", dtype=dtype) if autocast else contextlib.nullcontext():
            return step(network, dtype)

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return Steps(tracker).run(forward, lambda loss: loss.backward(), update)


def zero(c: Case) -> Case:
    """DeepSpeed's own optimizer of stages 1 and 2 over torch's fused AdamW, which like FusedAdam makes no temporaries."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    comm, timer = import_module("deepspeed.comm"), import_module("deepspeed.utils.timer")
    zero_module = import_module("deepspeed.runtime.zero.stage_1_and_2")

    if comm.comm.cdb is None:
        options = {"auto_mpi_discovery": False, "verbose": False, "dist_init_required": False}
        comm.init_distributed(dist_backend="fake", rank=c["gpus"] - 1, world_size=c["gpus"], **options)
    network, step, tokens = prepare(c)
    counted, dtype = counts(network), DTYPES[c["weights_dtype"]]
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake(network, dtype)
        weights = sum(up(x.numel() * x.element_size()) for x in tensors(network))
        tracker = Tracker()
        with tracker:
            trained = [p for p in network.parameters() if p.requires_grad]
            sharded = zero_module.DeepSpeedZeroOptimizer(
                torch.optim.AdamW(trained, lr=1e-4, fused=True),
                {p: name for name, p in network.named_parameters()},
                timers=timer.NoopTimer(),
                optimizer_params={},
                contiguous_gradients=True,
                reduce_bucket_size=c.get("reduce_bucket_size", BUCKET),
                dp_process_group=comm.new_group(list(range(c["gpus"]))),
                overlap_comm=c.get("overlap_comm", False),
                reduce_scatter=c.get("reduce_scatter", True),
                partition_grads=c["strategy"] == "zero2",
                communication_data_type=dtype,
                gradient_accumulation_dtype=dtype,
                check_grad_overflow=False,
                clip_grad=0.0,
            )
            del trained
            gc.collect()
        for x in tensors(network):
            tracker.add(x)

        def backward(loss: Any) -> None:
            sharded.backward_prologue()
            loss.backward()
            sharded.backward_epilogue()
            sharded.overlapping_partition_gradients_reduce_epilogue()

        def update() -> None:
            sharded.step()
            sharded.zero_grad(set_to_none=True)

        steps = Steps(tracker)
        steps.figures["weights"] = weights
        return {"tokens": tokens, **steps.run(lambda: step(network, dtype), backward, update), **counted}


def trace(c: Case) -> Case:
    """The case with its figures."""
    figures = {"fsdp1": fsdp1, "zero1": zero, "zero2": zero}.get(c["strategy"], sequence)(c)
    return {**{name: value for name, value in c.items() if not name.endswith(("_gib", "parameters"))}, **figures}


def main() -> None:
    rows = [json.loads(line) for line in sys.stdin]
    rows = [row for row in rows if row["strategy"] in ("fsdp1", "zero1", "zero2") or row.get("sequence", 1) > 1]
    if len(sys.argv) == 1:
        for gpus in sorted({row["gpus"] for row in rows}):
            lines = "".join(json.dumps(row) + "\n" for row in rows if row["gpus"] == gpus)
            subprocess.run([sys.executable, "-m", "tests.truth.trace_parallel", str(gpus)], input=lines, text=True, check=True)
        return
    gpus = int(sys.argv[1])
    for row in rows:
        rank = gpus - 1 if row["strategy"].startswith("zero") else 0  # the last partition's gradients come first
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=gpus)
        with contextlib.redirect_stdout(sys.stderr):  # where DeepSpeed's logger writes
            traced = trace(row)
        print(json.dumps(traced), flush=True)
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
