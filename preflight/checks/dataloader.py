"""Does the DataLoader fit the host's memory?

What: workers x prefetched batches x batch x one decoded sample in float32, on every GPU of a node, against its memory.
Why: a clip of 49 frames at 1280×720 is half a GB decoded. When the host runs out, its kernel kills a worker, and torch reports
"DataLoader worker exited unexpectedly" or a bus error.
Fix: fewer workers, prefetch 1, or latents that are cached.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.units import GIB, gib

CHANNELS, FLOAT32 = 3, 4  # torchvision's and decord's frames, scaled to [-1, 1] before they are collated


def check(case: Case) -> Answers:
    spec = case.job.spec
    data, host = spec.data, spec.hardware.host_memory_gib
    if not data.workers or host is None or data.latents == "cached" or case.job.vae is None:
        return
    sample = data.frames * data.height * data.width * CHANNELS * FLOAT32
    ranks = -(-spec.parallel.gpus // spec.parallel.nodes)
    needed = ranks * data.workers * data.prefetch * spec.train.batch * sample
    if needed <= host * GIB / 2:
        return
    message = (
        f"{ranks} × {data.workers} workers with {data.prefetch} batches of {spec.train.batch} decoded samples each hold"
        f" {gib(needed)} of the host's {host:g} GiB."
    )
    fitting = int(host * GIB / 2 // (ranks * data.prefetch * spec.train.batch * sample))
    yield Found("warning", message, "data.workers", fix=f"at most {fitting} workers a GPU" if fitting else "cache the latents")
