"""Do the text encoders read captions of this length?

What: tokens of a caption against those that the network's text encoders take together.
Why: CLIP has no positions beyond its 77 and stops; T5 goes on, at lengths it was not trained at, and cross-attention pays for them.
Fix: the encoders' own length; longer captions are cut there anyway.
"""

from __future__ import annotations

from preflight.checks.case import Answers, Case, Found


def check(case: Case) -> Answers:
    readers = [component for component, _ in case.job.encoders if component.kind == "text-encoder" and component.max_tokens]
    most = sum(component.max_tokens or 0 for component in readers)
    replaced = any("text_dim" in name or "cross_attention_dim" in name for name in case.job.spec.model.dims)
    if not readers or replaced or case.job.text_tokens <= most:
        return
    each = " and ".join(f"{component.max_tokens} of {component.name}" for component in readers)
    message = f"Captions of {case.job.text_tokens:,} tokens are longer than the {each}."
    yield Found("warning", message, "data.text_tokens", fix=f"at most {most}")
