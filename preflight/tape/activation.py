"""Activations, and what each keeps: its input, or its result (derivatives.yaml)."""

from __future__ import annotations

from preflight.tape.tensor import Call, Grads, Tensor


def keeps_input(x: Tensor) -> Tensor:
    """gelu, silu, leaky_relu, elu: a new tensor; the input is kept."""
    return x.tape.compute((x,), _backward, x.shape, x.dtype, saved=(x,))


def keeps_result(x: Tensor) -> Tensor:
    """tanh, sigmoid, relu, exp, rsqrt: a new tensor, which is kept itself."""
    return x.tape.compute((x,), _backward, x.shape, x.dtype, keeps_result=True)


def absolute(x: Tensor) -> Tensor:
    """abs: a new tensor; the input is kept, and its gradient is grad * self.sgn()."""
    return x.tape.compute((x,), _sign_backward, x.shape, x.dtype, saved=(x,))


def square(x: Tensor) -> Tensor:
    """pow(2): a new tensor; the input is kept."""
    return x.tape.compute((x,), _square_backward, x.shape, x.dtype, saved=(x,))


def root(x: Tensor) -> Tensor:
    """sqrt: a new tensor, which is kept itself."""
    return x.tape.compute((x,), _root_backward, x.shape, x.dtype, keeps_result=True)


def in_place(x: Tensor) -> Tensor:
    """relu_, leaky_relu_, elu_: the input's own memory, which is kept."""
    out = x.detach()
    return x.tape.record((x,), out, _backward, (out.detach(),))


def in_place_of_view(x: Tensor) -> Tensor:
    """The same where x is a view (a linear layer's result is one): autograd/functions/tensor.cpp, CopySlices."""
    out = x.detach()
    return x.tape.record((x,), out, _view_backward, (out.detach(),))


gelu = silu = clip = keeps_input
tanh = relu = sigmoid = rsqrt = keeps_result
# functions of torch.nn.functional that a config may name
BY_NAME = {
    "gelu": gelu,
    "silu": silu,
    "swish": silu,
    "mish": keeps_input,
    "elu": keeps_input,
    "leaky_relu": keeps_input,
    "relu": relu,
    "tanh": tanh,
    "sigmoid": sigmoid,
}


def _backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad.tape.empty(grad.shape, call.saved[0].dtype),)


def _sign_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    sign = grad.tape.empty(grad.shape, call.saved[0].dtype)
    return (grad * sign,)


def _square_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    # FunctionsManual.cpp, pow_backward: grad * (exponent * self.pow(exponent - 1)), whose factors live as long as it is computed
    power = call.saved[0] * 1.0
    double = power * 2.0
    return (grad * double,)


def _root_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    double = call.saved[0] * 2.0  # derivatives.yaml, sqrt: grad / (2 * result)
    return (grad * double,)


def _view_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    # the gradient is copied whole, the view's part of it cloned, and what becomes of that copied back
    whole, part, new = (grad.tape.empty(grad.shape, call.saved[0].dtype) for _ in range(3))
    del part, new
    return (whole,)
