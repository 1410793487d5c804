"""Does the DataLoader fit the host's memory?

What: workers x prefetched batches x batch x one decoded sample in float32, on every GPU of a node, against its memory.
Why: a clip of 49 frames at 1280×720 is half a GB decoded. When the host runs out, its kernel kills a worker, and torch reports
"DataLoader worker exited unexpectedly" or a bus error.
Fix: fewer workers, prefetch 1, or latents that are cached.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.memory.host import decoded_bytes, ranks_per_node
from preflight.units import GIB, gib


def check(case: Case) -> Answers:
    spec = case.job.spec
    data, host = spec.data, spec.hardware.host_memory_gib
    if not data.workers or host is None or data.latents == "cached" or case.job.vae is None:
        return
    ranks, one = ranks_per_node(spec), decoded_bytes(spec)
    needed = ranks * data.workers * data.prefetch * one
    if needed <= host * GIB / 2:
        return
    message = (
        f"{ranks} × {data.workers} workers with {data.prefetch} batches of {spec.train.batch} decoded samples each hold"
        f" {gib(needed)} of the host's {host:g} GiB."
    )
    fitting = int(host * GIB / 2 // (ranks * data.prefetch * one))
    yield Found("warning", message, "data.workers", fix=f"at most {fitting} workers a GPU" if fitting else "cache the latents")
