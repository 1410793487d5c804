"""The loss of LDL, weighed by where a generator makes artefacts (basicsr/losses/loss_util.py: get_refined_artifact_map)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.basicsr_common import REDUCTIONS, l1_loss
from preflight.networks.network import NotModelled
from preflight.tape.activation import absolute, keeps_input
from preflight.tape.module import Module
from preflight.tape.shaping import pad, sum_over
from preflight.tape.tensor import Call, Grads, Tensor

WINDOW = 7


class LocallyDiscriminative(Module):
    """`train.ldl_opt`: the L1 loss of output and target, each times the artefacts' map."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        kind, reduction = settings.get("type"), settings.get("reduction", "mean")
        if kind != "L1Loss" or reduction not in REDUCTIONS:
            raise NotModelled(f"the loss {kind!r} of ldl_opt, reduced by {reduction!r}, is not modelled, only L1Loss")
        self.reduce = REDUCTIONS[reduction]

    def forward(self, gt: Tensor, output: Tensor, output_ema: Tensor) -> Tensor:
        pixel_weight = artifact_map(gt, output, output_ema)
        return l1_loss(pixel_weight * output, pixel_weight * gt, self.reduce)


def artifact_map(img_gt: Tensor, img_output: Tensor, img_ema: Tensor) -> Tensor:
    """One number a pixel (B, 1, H, W), zero where the averaged generator is worse."""
    batch, _, height, width = img_gt.shape
    residual_ema = sum_over(absolute(img_gt - img_ema), batch, 1, height, width)
    residual_sr = sum_over(absolute(img_gt - img_output), batch, 1, height, width)

    patch_level_weight = keeps_input(variance(residual_sr.contiguous()))
    pixel_level_weight = local_weights(residual_sr.contiguous())
    overall_weight = patch_level_weight * pixel_level_weight
    worse = img_gt.tape.empty(residual_sr.shape, "bool")
    del residual_ema
    return overall_weight.tape.record((overall_weight,), overall_weight.detach(), _masked_backward, (worse,))


def variance(x: Tensor) -> Tensor:
    """torch.var of each sample of x (B, 1, H, W). derivatives.yaml: var, which keeps its input."""
    return x.tape.compute((x,), _variance_backward, (x.shape[0], 1, 1, 1), x.dtype, saved=(x,))


def local_weights(residual: Tensor) -> Tensor:
    """The variance of the 7 x 7 pixels around each: views of a padded copy."""
    batch, channels, height, width = residual.shape
    padded = pad(residual, batch, channels, height + WINDOW - 1, width + WINDOW - 1)
    shape = (batch, channels, height, width)
    return padded.tape.compute((padded,), _windows_backward, shape, padded.dtype, saved=(padded,))


def _masked_backward(_: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    return (grad.tape.empty(grad.shape, grad.dtype),)  # index_put: a copy with zeros


def _variance_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    x = call.saved[0]
    centred = x + 1.0  # FunctionsManual.cpp, var_backward: (2 / n * grad) * (self - self.mean())
    scaled = grad * 2.0
    return (scaled * centred,)


def _windows_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    tape, (batch, channels, tall, wide) = grad.tape, call.saved[0].shape
    height, width = grad.shape[2:]
    windows = (batch, channels, height, width, WINDOW, WINDOW)
    mean = tape.empty(grad.shape, grad.dtype)
    centred = tape.empty(windows, grad.dtype)
    scaled = grad * 2.0
    made = tape.empty(windows, grad.dtype)
    del mean, centred, scaled
    rows = tape.empty((batch, channels, height, wide, WINDOW), grad.dtype)  # unfold_backward, the inner one first
    del made
    whole = tape.empty((batch, channels, tall, wide), grad.dtype)
    del rows
    return (whole,)
