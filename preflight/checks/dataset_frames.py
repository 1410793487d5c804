"""Are the clips as long as the frames that are trained?

What: clips whose frames in the index, or seconds times frames a second, are fewer than the run asks. Of a large index
the first rows.
Why: trainers refuse a short clip, drop it, or repeat its last frame, and a network learns to stand still from that.
Fix: fewer frames, or leave out those clips.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found
from preflight.data.balance import share
from preflight.data.seen import read


def check(case: Case) -> Answers:
    frames, fps = case.job.spec.data.frames, case.job.spec.data.fps
    at = f" at {fps:g} fps" if fps else ""
    if frames == 1:
        return
    for one, found in read(case.job.spec, case.job.text_tokens):
        clips = found.clips
        if clips is None or not clips.short:
            continue
        message = (
            f"{clips.short:,} of {one.of(clips.known, 'clips')}"
            f" ({share(clips.short, clips.known)}) have fewer than the {frames} frames asked{at}, the shortest {clips.fewest}."
        )
        yield Found("warning", message, one.key)
