"""Is this a size that the network was trained at?

What: height, width and frames against those that the network's authors state.
Why: a pretrained network has seen only those positions and token counts; at others it has to learn them anew, and LoRA of a small
rank hardly can.
Fix: a size of the list, if the run starts from the pretrained weights.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found


def check(case: Case) -> Answers:
    data, network = case.job.spec.data, case.job.network
    sizes = network.trained_sizes
    if sizes and (data.height, data.width) not in sizes:
        area, aspect = data.height * data.width, data.height / data.width
        nearest = min(sizes, key=lambda size: (round(abs(size[0] / size[1] - aspect), 1), abs(size[0] * size[1] - area)))
        message = (
            f"{data.height}×{data.width} is not among the {len(sizes)} sizes that {network.name} was trained at;"
            f" the nearest is {nearest[0]}×{nearest[1]}."
        )
        yield Found("note", message, "data.height")
    if network.max_frames is not None and data.frames > network.max_frames:
        message = f"{data.frames} frames are more than the {network.max_frames} that {network.name} was trained at."
        yield Found("note", message, "data.frames")
