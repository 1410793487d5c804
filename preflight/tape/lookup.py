"""Rows of a table (torch.nn.functional.embedding)."""

from __future__ import annotations

from preflight.tape.tensor import Call, Grads, Tensor


def lookup(table: Tensor, indices: Tensor) -> Tensor:
    """indices (…) of table (n, width) give (…, width).

    Keeps the indices; the gradient is a whole table (embedding_dense_backward).
    """
    shape = (*indices.shape, table.shape[1])
    return table.tape.compute((table,), _lookup_backward, shape, table.dtype, saved=(indices,), context=table.shape)


def _lookup_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad.tape.empty(call.context, grad.dtype),)
