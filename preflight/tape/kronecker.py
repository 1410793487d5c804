"""LoKr adapters: a layer's change as the Kronecker product of two small matrices (arXiv 2309.14859), never made whole.

lycoris/modules/lokr.py of github.com/KohakuBlueleaf/LyCORIS (commit f49d30d), LokrModule.bypass_forward, and
toolkit/models/lokr.py of ostris/ai-toolkit, LokrModule._call_forward_fast_linear.
"""

from __future__ import annotations

from preflight.tape import linear as ops
from preflight.tape.slicing import adjacent
from preflight.tape.tensor import Parameter, Tensor


def factorization(dimension: int, factor: int) -> tuple[int, int]:
    """`dimension` as a product: of `factor` where that divides it, else as even as there is, its smaller part at most `factor`.

    -1 sets no limit.
    """
    if factor > 0 and dimension % factor == 0:
        return factor, dimension // factor
    limit = dimension if factor == -1 else factor
    small, large = 1, dimension
    while small < large:
        following = next(n for n in range(small + 1, dimension + 1) if dimension % n == 0)
        if following + dimension // following > small + large or following > limit:
            break
        small, large = following, dimension // following
    return min(small, large), max(small, large)


def factors(inputs: int, outputs: int, rank: int, factor: int) -> tuple[Parameter, ...]:
    """w1 (out_l, in_m) and w2 (out_k, in_n), the latter of rank `rank` in two where that is less than half of its larger side."""
    (in_m, in_n), (out_l, out_k) = factorization(inputs, factor), factorization(outputs, factor)
    small = Parameter((out_l, in_m))
    if rank < max(out_k, in_n) / 2:
        return small, Parameter((out_k, rank)), Parameter((rank, in_n))
    return small, Parameter((out_k, in_n))


def bypassing(x: Tensor, base: Tensor, small: Tensor, large: Tensor, narrow: Tensor | None) -> Tensor:
    """`base` and what LyCORIS' adapter adds for x; each intermediate result has a name that lives until the last."""
    x = adjacent(x)
    lead, in_m = x.shape[:-1], small.shape[1]
    parts = x.view(*lead, in_m, x.shape[-1] // in_m)
    if narrow is not None:
        parts = ops.linear(parts, narrow)
    product = ops.linear(parts, large)
    crossed = product.view(*lead, large.shape[0], in_m).contiguous()
    delta = ops.linear(crossed, small)
    del crossed  # made inside of the call
    joined = delta.view(*base.shape).contiguous()
    return base + joined * 1.0 * 1.0


def adapted(x: Tensor, base: Tensor, small: Tensor, large: Tensor, narrow: Tensor | None) -> Tensor:
    """`base` and what the adapter adds for x, in base's dtype; einsum's second contraction copies what it exchanges."""
    x = adjacent(x).to(base.dtype)
    small, large = small.to(base.dtype), large.to(base.dtype)
    lead, in_m = x.shape[:-1], small.shape[1]
    parts = x.view(*lead, in_m, x.shape[-1] // in_m)
    if narrow is not None:
        parts = ops.linear(parts, narrow.to(base.dtype))
    product = ops.linear(parts, large)
    product = product.view(*lead, large.shape[0], in_m).contiguous()
    delta = ops.linear(product, small * 1.0)
    delta = delta.view(*base.shape).contiguous()
    return base + delta * 1.0
