"""Attention over the tokens of samples that several GPUs share: heads exchanged (Ulysses), keys and values in a ring, or both.

`yunchang` is that package's all_to_all_4D as Wan's own code, VideoX-Fun and FastVideo write it; `diffusers` its templated
attention (models/attention_dispatch.py), whose custom functions save what they exchanged and run the kernel again in the backward
pass; `torch` its ring (torch/distributed/tensor/experimental/_context_parallel/_attention.py). Queries, keys and values are
(B, tokens, heads, width), tokens those of one GPU.
"""

from __future__ import annotations

from collections.abc import Sequence

from preflight.tape.attention import attention, attention_backward
from preflight.tape.flops import multiplied
from preflight.tape.meter import Size, somewhere
from preflight.tape.shaping import cat, exchange, narrow
from preflight.tape.slicing import cat_tokens, slice_tokens
from preflight.tape.tensor import Call, Grads, Tensor


def share(tokens: Size, ranks: int) -> Size:
    """Tokens of the GPU that has most (tensor.chunk, tensor_split)."""
    return tokens if ranks == 1 else -(-tokens // ranks)


def gathered(x: Tensor, ranks: int) -> Tensor:
    """The tokens of all GPUs side by side (torch's all_gather_tensor, which then puts them in order); the gradient is a part."""
    if ranks == 1:
        return x
    received = x.tape.empty((x.shape[0] * ranks, *x.shape[1:]), x.dtype)
    out = cat([x] * ranks, 1)
    del received
    return out


def shared_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention of this GPU's tokens to those of all that share the samples; (B, tokens, heads, width)."""
    sharing = query.tape.sharing
    if sharing.ranks == 1:
        return attended(query, key, value, mask)
    if sharing.code == "diffusers" and sharing.ring == 1:
        return _ulysses(query, key, value, mask)
    batch, tokens, heads, width = query.shape
    groups = sharing.groups
    if groups > 1:
        query, key, value = (exchange(x, batch, tokens * groups, heads // groups, width) for x in (query, key, value))
    out = _ring(query, key, value) if sharing.ring > 1 else attended(query, key, value, mask)
    return exchange(out, batch, tokens, heads, width) if groups > 1 else out


def joint_attention(image: Sequence[Tensor], text: Sequence[Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Query, key and value of an image whose tokens are shared and of a text that every GPU has whole; both attended to.

    FastVideo's DistributedAttention (fastvideo/attention/layer.py): the three are exchanged as one, each GPU takes its own heads
    of the text, and its result is gathered.
    """
    ranks = image[0].tape.sharing.ranks
    batch, tokens, heads, width = image[0].shape
    texts, own = text[0].shape[1], heads // ranks
    together = exchange(cat(image, 0), 3 * batch, tokens * ranks, own, width)
    replicated = narrow(cat(text, 0), 3 * batch, texts, own, width)
    both = cat_tokens([together, replicated])
    del together
    query, key, value = (narrow(both, batch, both.shape[1], own, width) for _ in range(3))
    out = attended(query, key, value, mask)
    del both
    seen, said = slice_tokens(out, tokens * ranks), slice_tokens(out, texts).contiguous()
    received = said.tape.empty((batch * ranks, texts, own, width), said.dtype)
    whole = cat([said] * ranks, 2)
    del received
    return exchange(seen, batch, tokens, heads, width), whole


def attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention among the tokens that are given; (B, tokens, heads, width)."""
    query, key, value = (_transposed(x) for x in (query, key, value))
    return _transposed(attention(query, key, value, mask))


def _transposed(x: Tensor) -> Tensor:
    return x.view(x.shape[0], x.shape[2], x.shape[1], x.shape[3])


def _received(tensors: Sequence[Tensor], *, ordered: bool) -> list[Tensor]:
    """As many bytes from the other GPUs: laid out for them first, and if they come in another order, copied into the right one."""
    sent = [x.tape.empty(x.shape, x.dtype) for x in tensors]
    got = [x.tape.empty(x.shape, x.dtype) for x in tensors]
    del sent
    return got if ordered else [x.tape.empty(x.shape, x.dtype) for x in got]


def _ulysses(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """TemplatedUlyssesAttention over torch's own attention: only what was exchanged is saved."""
    tape, (batch, tokens, heads, width) = query.tape, query.shape
    ranks = tape.sharing.ranks
    shape = (batch, tokens * ranks, heads // ranks, width)
    ordered = not somewhere(batch > 1)  # the samples of all GPUs lie behind each other's tokens, which for one is their order
    with tape.no_grad():
        saved = tuple(x.view(*shape) for x in _received([x.detach() for x in (query, key, value)], ordered=ordered))
        out = attended(saved[0], saved[1], saved[2], mask)
        sent = tape.empty(out.shape, out.dtype)
        del out
        got = tape.empty(sent.shape, sent.dtype)
        del sent
        out = tape.empty(query.shape, got.dtype)
        del got
    return tape.record((query, key, value), out, _ulysses_backward, saved=saved, context=(query.shape, ordered))


def _ulysses_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    tape, (shape, ordered) = grad.tape, call.context
    query, key, value = (_transposed(x) for x in call.saved)
    (grad,) = _received([grad], ordered=ordered)
    multiplied(tape, query.shape, key.shape[2:3], products=2, backward=True)
    again = tape.empty(query.shape, query.dtype), tape.empty(query.shape[:3], "fp32")
    own = attention_backward(Call((query, key, value), (True, True, True), None), grad)
    del again
    grads = tuple(x.view(*shape) for x in _received([x for x in own if x is not None], ordered=False))
    del own
    return grads


def _ring(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """TemplatedRingAttention over torch's flash kernel: keys and values of all GPUs gathered, one part's result at a time.

    Partial results are merged in float32 by their log-sum-exps. diffusers' merged one is an attribute of the node, which no
    checkpoint gives up, and what the first part left is saved beside it; torch saves the merged one.
    """
    tape, ring = query.tape, query.tape.sharing.ring
    rows = (*query.shape[:3], 1)
    with tape.no_grad():
        everyones = _passed_around(key, value, ring)
        first = _kernel(query, key, value)
        merged = first[0].to("fp32")
        for _ in range(ring - 1):
            part, sums = _kernel(query, key, value)
            wide = part.to("fp32")
            del part
            product = _difference(merged, wide)
            result = tape.empty(query.shape, "fp32")
            del product, wide
            merged = result
            del result, sums
        out = merged.to(query.dtype)
        lse = tape.empty(rows, "fp32")
        del everyones, merged
    if tape.sharing.code == "torch":
        return tape.record((query, key, value), out, _ring_backward, saved=(query, key, value, out.detach(), lse), context=(ring,))
    out = tape.record(
        (query, key, value), out, _ring_backward, saved=(query, key, value, *first), context=(ring, out.detach(), lse)
    )
    for storage in (out.storage, lse.storage) if out.node is not None else ():
        assert storage is not None
        storage.keep()
    return out


def _passed_around(key: Tensor, value: Tensor, ring: int) -> Tensor:
    """Keys and values of all GPUs of the ring in one buffer (rotate_method allgather)."""
    own = key.tape.empty((2, *key.shape), key.dtype)
    everything = key.tape.empty((ring, 2, *key.shape), value.dtype)
    del own
    return everything


def _kernel(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """_native_flash_attention_forward_op: its inputs copied head by head, its output and log-sum-exp copied back."""
    tape = query.tape
    multiplied(tape, _transposed(query).shape, key.shape[1:2], products=2)
    copies = [tape.empty(x.shape, x.dtype) for x in (query, key, value)]
    out, sums = tape.empty(query.shape, query.dtype), tape.empty(query.shape[:3], "fp32")
    made = tape.empty(query.shape, query.dtype), tape.empty(query.shape[:3], "fp32")
    del copies, out, sums
    return made


def _difference(merged: Tensor, wide: Tensor) -> Tensor:
    """sigmoid(lse - previous) * (merged - wide): the difference stays until it is weighted."""
    difference = merged.tape.empty(merged.shape, "fp32")
    product = merged.tape.empty(wide.shape, "fp32")
    del difference
    return product


def _ring_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    tape, ring = grad.tape, call.context[0]
    query, key, value = call.saved[:3]
    query_sum, key_sum, value_sum = (tape.empty(x.shape, "fp32") for x in (query, key, value))
    travelling: list[Tensor] = [key_sum, value_sum]
    del key_sum, value_sum
    kept = _passed_around(key, value, ring)
    sent: list[Tensor] = []
    for _ in range(ring):
        own = _kernel_backward(grad, query, key, value)
        if sent:  # what came from the GPU before, and what was sent is given up
            travelling = sent[-1:]
            sent = []
        sent = [tape.empty((2, *key.shape), "fp32") for _ in range(2)]
    travelling, sent = sent[-1:], []
    out = tuple(tape.empty(x.shape, grad.dtype) for x in (query, key, value))
    del kept, query_sum, travelling, own
    return out


def _kernel_backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    """_native_flash_attention_backward_op: five inputs copied head by head, three gradients copied back."""
    tape = grad.tape
    copies = [tape.empty(x.shape, x.dtype) for x in (grad, query, key, value, query)]
    inputs = tuple(_transposed(x) for x in (query, key, value))
    own = attention_backward(Call(inputs, (True, True, True), None), grad)
    back = [tape.empty(x.shape, x.dtype) for x in (query, key, value)]
    del copies, own
    return back
