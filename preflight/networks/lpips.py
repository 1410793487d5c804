"""The learned perceptual distance on VGG-16 (richzhang/PerceptualSimilarity lpips/lpips.py, 0.1), frozen."""

from __future__ import annotations

from preflight.networks.vgg import Normalized, Vgg
from preflight.tape.activation import keeps_result
from preflight.tape.module import Conv, Module
from preflight.tape.shaping import sum_over
from preflight.tape.tensor import Call, Grads, Tensor

LAYERS = {"relu1_2": 64, "relu2_2": 128, "relu3_3": 256, "relu4_3": 512, "relu5_3": 512}


class Lpips(Module):
    def __init__(self) -> None:
        self.scaling_layer = Normalized()
        self.net = Vgg("vgg16", LAYERS, copies=False)
        self.lins = [Conv(width, 1, (1, 1), bias=False) for width in LAYERS.values()]
        for _, parameter in self.parameters():
            parameter.requires_grad = False

    def forward(self, in0: Tensor, in1: Tensor) -> Tensor:
        in0_input, in1_input = self.scaling_layer(in0), self.scaling_layer(in1)
        outs0, outs1 = self.net(in0_input), self.net(in1_input)
        feats0, feats1, diffs = {}, {}, {}
        for name in LAYERS:
            feats0[name], feats1[name] = normalize_tensor(outs0[name]), normalize_tensor(outs1[name])
            diffs[name] = squared(feats0[name] - feats1[name])
        res = [sum_over(lin(diffs[name]), in0.shape[0], 1, 1, 1) for lin, name in zip(self.lins, LAYERS, strict=True)]
        val = res[0] + res[1] + res[2] + res[3] + res[4]
        return val


def normalize_tensor(x: Tensor) -> Tensor:
    batch, _, height, width = x.shape
    norm_factor = keeps_result(sum_over(squared(x), batch, 1, height, width))
    return divided(x, norm_factor + 1e-10)


def squared(x: Tensor) -> Tensor:
    """x**2, in float32 under autocast."""
    x = x.float() if x.tape.autocast else x
    return x.tape.compute((x,), _squared_backward, x.shape, x.dtype, saved=(x,))


def _squared_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    # functions.cpp: pow_backward is grad * (exponent * self), which the expression holds
    scaled = call.saved[0] * 2.0
    return (grad * scaled,)


def divided(a: Tensor, b: Tensor) -> Tensor:
    """a / b; derivatives.yaml: div keeps both where b wants a gradient."""
    saved = (a if b.requires_grad else None, b)
    dtype = "fp32" if "fp32" in (a.dtype, b.dtype) else a.dtype
    return a.tape.compute((a, b), _divided_backward, a.shape, dtype, saved=saved)


def _divided_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    first = grad.tape.empty(grad.shape, grad.dtype) if call.needs[0] else None
    if not call.needs[1]:
        return (first, None)
    negative = -grad
    ratio = grad.tape.empty(grad.shape, grad.dtype)
    again = grad.tape.empty(grad.shape, grad.dtype)
    del ratio
    second = negative * again
    return (first, second)
