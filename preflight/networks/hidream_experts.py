"""HiDream-I1's feed-forward layers (diffusers/models/transformers/transformer_hidream_image.py).

In training every expert runs on the tokens that chose it, two copies of each token in all. The experts are taken to be chosen
equally often: what they keep together does not depend on it, only what the busiest needs while it runs.
"""

from __future__ import annotations

from preflight.tape.activation import silu
from preflight.tape.linear import linear
from preflight.tape.module import Linear, Module
from preflight.tape.routing import best, pick, put, softmax, summed
from preflight.tape.shaping import sum_over
from preflight.tape.tensor import Parameter, Tensor


class FeedForwardSwiGLU(Module):
    """HiDreamImageFeedForwardSwiGLU."""

    def __init__(self, dim: int, hidden_dim: int, *, multiple_of: int = 256) -> None:
        hidden_dim = int(2 * hidden_dim / 3)
        hidden_dim = multiple_of * ((hidden_dim + multiple_of - 1) // multiple_of)
        self.w1, self.w2 = Linear(dim, hidden_dim, bias=False), Linear(hidden_dim, dim, bias=False)
        self.w3 = Linear(dim, hidden_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(silu(self.w1(x)) * self.w3(x))


class Gate(Module):
    """MoEGate: the experts of each token, and their weights. Its auxiliary loss is computed and dropped, too small to count."""

    def __init__(self, dim: int, experts: int, activated: int) -> None:
        self.weight = Parameter((experts, dim))
        self.activated = activated

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        batch, tokens, dim = x.shape
        logits = linear(x.view(batch * tokens, dim), self.weight)
        scores = softmax(logits)
        return best(scores, self.activated)


class Experts(Module):
    """MOEFeedForwardSwiGLU."""

    def __init__(self, dim: int, hidden_dim: int, experts: int, activated: int) -> None:
        self.shared_experts = FeedForwardSwiGLU(dim, hidden_dim // 2)
        self.experts = [FeedForwardSwiGLU(dim, hidden_dim) for _ in range(experts)]
        self.gate = Gate(dim, experts, activated)
        self.activated = activated

    def forward(self, x: Tensor) -> Tensor:
        tape, wtype, identity = x.tape, x.dtype, x
        batch, tokens, dim = x.shape
        topk_weight, _topk_idx = self.gate(x)
        copies = batch * tokens * self.activated
        x = sum_over(x.view(batch * tokens, dim), copies, dim)  # repeat_interleave, whose gradient is summed up again
        y = tape.empty((copies, dim), wtype)
        for expert in self.experts:
            values = expert(pick(x, tape.empty((copies,), "bool"), copies // len(self.experts))).to(wtype)
            put(y, tape.empty((copies,), "bool"), values)
        del values
        y = y.view(batch * tokens, self.activated, dim) * topk_weight.view(batch * tokens, self.activated, 1)
        y = summed(y, 1)
        y = y.view(batch, tokens, dim).to(wtype)
        return y + self.shared_experts(identity)
