"""Generator and discriminator in turn, and a VGG as judge (basicsr/models/srgan_model.py, esrgan_model.py, realesrgan_model.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.basicsr_common import TRAINING, Restoration, l1_loss
from preflight.networks.basicsr_discriminators import discriminator
from preflight.networks.basicsr_ldl import LocallyDiscriminative
from preflight.networks.network import NotModelled, Shape
from preflight.networks.vgg import Normalized, Vgg
from preflight.tape.backward import backward
from preflight.tape.loss import mse_loss
from preflight.tape.module import Module
from preflight.tape.shaping import sum_over
from preflight.tape.tensor import Buffer, Call, Grads, Parameter, Tape, Tensor


class PerceptualLoss(Module):
    """losses/basic_loss.py, without its style loss."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        if settings.get("style_weight", 0.0):
            raise NotModelled("the style loss of perceptual_opt is not modelled")
        criterion = settings.get("criterion", "l1")
        if criterion not in ("l1", "l2"):
            raise NotModelled(f"the criterion {criterion!r} of perceptual_opt is not modelled, only l1 and l2")
        self.criterion = l1_loss if criterion == "l1" else mse_loss
        self.vgg = Vgg(settings.get("vgg_type", "vgg19"), settings["layer_weights"], copies=True)
        self.norm = Normalized() if settings.get("use_input_norm", True) else None
        self.range_norm = settings.get("range_norm", False)

    def forward(self, x: Tensor, gt: Tensor) -> Tensor:
        x_features = self._features(x)
        gt_features = self._features(gt)
        total = None
        for name in x_features:
            part = self.criterion(x_features[name], gt_features[name])
            total = part if total is None else total + part
        assert total is not None
        return total

    def _features(self, x: Tensor) -> dict[str, Tensor]:
        if self.range_norm:
            x = (x + 1.0) / 2.0
        if self.norm is not None:
            x = self.norm(x)
        found: dict[str, Tensor] = self.vgg(x)
        return found


class Adversarial(Restoration):
    """A Restoration that may have a discriminator and a perceptual loss; without either it is trained as any other."""

    keeps_graphs = False
    averaged: Tensor | None = None

    def train_with(self, dims: Mapping[str, Any]) -> None:
        super().train_with(dims)
        asked = {**TRAINING, **dims}
        self.model_type = asked["model_type"]
        self.ldl = LocallyDiscriminative(asked["ldl_opt"]) if asked["ldl_opt"] is not None else None
        self.keeps_graphs = self.ldl is not None
        percept, adversary, queue = asked["perceptual_opt"], asked["network_d"], asked["queue_size"]
        self.perceptual = PerceptualLoss(percept) if percept else None
        self.net_d = discriminator(adversary) if adversary else None
        if self.net_d is not None and (asked["gan_opt"] or {}).get("gan_type", "vanilla") not in ("vanilla", "lsgan"):
            raise NotModelled("of gan_opt's types only vanilla and lsgan are modelled")
        self.queue_size = queue
        self.gradients_of_generator: list[Tensor] = []

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        self.kept, self.averaged, self.gradients_of_generator = (), None, []
        high = (shape.batch, self.outputs, shape.height, shape.width)
        lq = tape.empty((shape.batch, self.inputs, shape.height // self.scale, shape.width // self.scale), dtype)
        gt = tape.empty(high, dtype)
        sharpened = tape.empty(high, dtype) if self.queue_size else gt  # gt_usm
        pool = self._pool(tape, shape, dtype)
        previous = tape.empty(high, dtype)  # self.output, until this step's takes its place
        if self.net_d is None or not tape.grad_enabled:
            output = self(lq)
            del previous
            self.kept = (lq, gt, sharpened, output.detach(), *pool)
            return self._judged(output, sharpened)
        before = self._averaged(tape.empty(lq.shape, dtype))  # self.output_ema with its graph, until this step's takes its place
        critics = [parameter for _, parameter in self.net_d.parameters()]
        tape.parallel.keep_gradients(tape, critics)  # of the step before, until optimizer_d.zero_grad()
        _want(critics, wanted=False)
        output = self(lq)
        del previous
        self.kept = (lq, gt, sharpened, output.detach(), *pool)
        self.averaged = self._averaged(lq)
        del before
        total = self._judged(output, sharpened, gt)
        if self.model_type == "ESRGANModel":
            real = self.net_d(gt).detach()
            fake = self.net_d(output)
            half = bce(real - sum_over(fake))
            total = total + (half + bce(fake - sum_over(real))) / 2.0
        else:
            fake = self.net_d(output)
            total = total + bce(fake)
        backward(total)
        self._keep_generator()

        _want(critics, wanted=True)
        tape.parallel.drop_gradients(critics)
        return self._critic(output, gt)

    def _critic(self, output: Tensor, gt: Tensor) -> Tensor:
        """The discriminator's two losses, of which the second is answered."""
        assert self.net_d is not None
        relativistic = self.model_type == "ESRGANModel"
        if relativistic:
            fake = self.net_d(output).detach()
            real = self.net_d(gt)
            first = bce(real - sum_over(fake))
        else:
            real = self.net_d(gt)
            first = bce(real)
        backward(first)
        fake = self.net_d(output.detach() if relativistic else output.detach().contiguous())
        return bce(fake - sum_over(real.detach())) if relativistic else bce(fake)

    def _averaged(self, lq: Tensor) -> Tensor | None:
        """net_g_ema's output, whose graph nothing ever walks back; its weights, counted elsewhere, are as the generator's own."""
        return self.forward(lq) if self.ldl is not None else None

    def _judged(self, output: Tensor, target: Tensor, plain: Tensor | None = None) -> Tensor:
        total = self.pixel_loss(output, target)
        if self.ldl is not None and self.averaged is not None and plain is not None:
            total = total + self.ldl(plain, output, self.averaged)
        return total if self.perceptual is None else total + self.perceptual(output, target)

    def _pool(self, tape: Tape, shape: Shape, dtype: str) -> tuple[Tensor, ...]:
        """_dequeue_and_enqueue: `queue_size` pairs that stay on the GPU."""
        if not self.queue_size:
            return ()
        low = (self.queue_size, self.inputs, shape.height // self.scale, shape.width // self.scale)
        return tape.empty(low, dtype), tape.empty((self.queue_size, self.outputs, shape.height, shape.width), dtype)

    def _keep_generator(self) -> None:
        """The generator's gradients stay until the next step begins, beside the discriminator's."""
        for name, parameter in self.parameters():
            if not name.startswith("net_d.") and not isinstance(parameter, Buffer) and parameter.grad is not None:
                self.gradients_of_generator.append(parameter.grad)
                parameter.grad = None


def bce(x: Tensor) -> Tensor:
    """losses/gan_loss.py: BCEWithLogitsLoss against a tensor of ones; derivatives.yaml keeps both."""
    label = x.tape.empty(x.shape, x.dtype)
    label = label * 1.0
    return x.tape.compute((x,), _bce_backward, (), x.dtype, saved=(x, label))


def _bce_backward(call: Call, grad: Tensor | None) -> Grads:
    assert grad is not None
    x = call.saved[0]
    probability = grad.tape.empty(x.shape, x.dtype)
    difference = probability - call.saved[1]
    del probability
    return (difference * grad,)


def _want(parameters: list[Parameter], *, wanted: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad = wanted
