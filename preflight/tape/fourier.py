"""Fourier transforms, and the product over modes that spectral convolutions take (torch.fft, torch.einsum)."""

from __future__ import annotations

from preflight.tape.autocast import upper
from preflight.tape.flops import multiplied
from preflight.tape.meter import Size
from preflight.tape.tensor import Call, Grads, Parameter, Shape, Tensor


def rfftn(x: Tensor) -> Tensor:
    """The transform of a real x (…, n) over its last dimensions: complex (…, n // 2 + 1).

    Keeps x whole: derivatives.yaml names only its size, but as `self.sym_size(dim.back())`, a form that the code generator does not
    take for a size (`FftR2CBackward0._saved_self`). Autocast runs it in float32: cuFFT has no bfloat16, and float16 only for powers
    of two.
    """
    x = upper(x)
    return x.tape.compute((x,), _r2c_backward, (*x.shape[:-1], x.shape[-1] // 2 + 1), "complex64", saved=(x,), context=x.shape)


def irfftn(x: Tensor, last: Size) -> Tensor:
    """A complex x (…, last // 2 + 1) back to real (…, last). derivatives.yaml: _fft_c2r, which saves nothing."""
    return x.tape.compute((x,), _c2r_backward, (*x.shape[:-1], last), "fp32", context=x.shape)


def fftshift(x: Tensor) -> Tensor:
    """A new tensor, rolled; so is its gradient. torch counts one roll however many dimensions it has."""
    return x.tape.compute((x,), _roll_backward, x.shape, x.dtype)


def alias(weight: Tensor) -> Tensor:
    """A view of a whole parameter (`weight[:, :]`) that is then permuted.

    The gradient comes back with the permutation's strides, so the parameter takes a copy in its own
    (torch/csrc/autograd/utils/grad_layout_contract.h: clone_obey_contract).
    """
    return weight.tape.record((weight,), weight.detach(), _copied_backward)


def modes_product(x: Tensor, weight: Tensor, *, merges: bool = False) -> Tensor:
    """einsum "bixy,ioxy->boxy", of any number of mode dimensions: x (B, I, *modes), weight (I, O, *modes) give (B, O, *modes).

    aten/src/ATen/native/Linear.cpp: sumproduct_pair. The modes become the batch of one bmm. The modes of a whole weight merge into
    that batch as they stand; those of x, a part cut out of a transform, do not, so x is copied first, unless it `merges`.
    """
    if isinstance(weight, Parameter):
        weight = alias(weight)
    if not merges:
        x = x if merges else x.contiguous()
    shape: Shape = (x.shape[0], weight.shape[1], *x.shape[2:])
    saved = (x if weight.requires_grad else None, weight if x.requires_grad else None)
    out = x.tape.compute((x, weight), _bmm_backward, shape, x.dtype, saved=saved, context=(x.shape, weight.shape))
    multiplied(x.tape, shape, weight.shape[:1])
    return out


def _r2c_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    # FunctionsManual.cpp: fft_r2c_backward. The half spectrum is padded with zeros, transformed, and its real part is a
    # view: the complex bytes live as long as the gradient does.
    tape, shape = grad.tape, call.context
    padded = tape.empty(shape, grad.dtype)
    whole = tape.empty(shape, padded.dtype)
    return (Tensor(tape, shape, "fp32", whole.storage),)


def _c2r_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    # fft_c2r_backward: an r2c transform, whose middle is doubled in place
    return (grad.tape.empty(call.context, "complex64"),)


def _roll_backward(_: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad.tape.empty(grad.shape, grad.dtype),)


def _copied_backward(_: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad.contiguous(),)


def _bmm_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    x_shape, weight_shape = call.context
    multiplied(grad.tape, grad.shape, weight_shape[:1], products=call.needs[0] + call.needs[1], backward=True)
    weight = grad.tape.empty(weight_shape, grad.dtype) if call.needs[1] else None
    x = grad.tape.empty(x_shape, grad.dtype) if call.needs[0] else None
    return (x, weight)
