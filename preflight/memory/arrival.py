"""What the text encoders add to loading, when a run puts them on the GPU as it starts, whether they stay for its steps or not."""

from __future__ import annotations

from preflight.job import Job
from preflight.memory.encoders import encoders_bytes
from preflight.tape.dtypes import BYTES


def encoders_arriving(job: Job, network: int, wide: int) -> int:
    """Bytes of the network and the encoders at the worst moment between them; 0 where no encoder is loaded then.

    `network` is what stands of the network while the run goes on, `wide` what did before it was narrowed.
    """
    place, precision = job.spec.data.text_loading, job.spec.precision
    if place == "none" or not job.encoders:
        return 0
    narrow = encoders_bytes(job)
    widening = 0
    if precision.text_encoder_quantized_on == "gpu" and not job.spec.offload.text_layers:
        widening = max(component.parameters * BYTES[dtype] - narrow[component.id] for component, dtype in job.encoders)
    together = sum(narrow.values())
    if place == "alone":
        return together + widening
    if place == "apart":
        return together + max(widening, network)
    first = max(narrow.values()) if place == "first" else 0
    return max(wide + first, network + together + widening)
