"""DiffSR's MWT_SuperResolution (models/MWT/MWT.py, layers/MWT_Layers.py): multiwavelets, then upsampling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from preflight.networks.diffsr_common import ChannelsLastConv, SuperResolution, anywhere, corner, interpolate
from preflight.networks.diffsr_galerkin_transformer import MLP
from preflight.tape.activation import gelu, in_place, relu
from preflight.tape.fourier import irfftn, modes_product, rfftn
from preflight.tape.linear import matmul
from preflight.tape.meter import Size
from preflight.tape.module import Blocks, Checkpointing, Conv, Linear, Module
from preflight.tape.shaping import assign, cat, narrow, pad
from preflight.tape.tensor import Buffer, Parameter, Tensor


class SparseKernel(Module):
    """sparseKernel2d: x (B, N, N, c, k²)."""

    def __init__(self, k: int, alpha: int, c: int) -> None:
        self.conv = [ChannelsLastConv(c * k**2, alpha * k**2, (3, 3), padding=1)]
        self.Lo = Linear(alpha * k**2, c * k**2)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, c, inner = x.shape
        x = x.view(batch, c * inner, height, width)
        x = self._conv(x)
        x = x.view(batch, height, width, x.shape[1])
        x = self.Lo(x)
        return x.view(batch, height, width, c, inner)

    def _conv(self, x: Tensor) -> Tensor:
        x = self.conv[0](x)
        return in_place(x)


class SparseKernelFourier(Module):
    """sparseKernelFT2d: the lowest `modes` of each corner."""

    def __init__(self, k: int, modes: int, c: int) -> None:
        self.modes = modes
        self.weights1 = Parameter((c * k**2, c * k**2, modes, modes), "complex64")
        self.weights2 = Parameter((c * k**2, c * k**2, modes, modes), "complex64")
        self.Lo = Linear(c * k**2, c * k**2)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, c, inner = x.shape
        x = x.view(batch, c * inner, height, width)
        x_fft = rfftn(x)

        l1, l2 = smaller(self.modes, height // 2 + 1), smaller(self.modes, width // 2 + 1)
        out_ft = x.tape.empty(x_fft.shape, x_fft.dtype)
        for weights in (self.weights1, self.weights2):
            assign(out_ft, (batch, c * inner, l1, l2), self._multiply(x_fft, weights, l1, l2))

        x = irfftn(out_ft, width)
        x = x.view(batch, height, width, c * inner)
        x = relu(x)
        x = self.Lo(x, transposed=True)
        return x.view(batch, height, width, c, inner)

    def _multiply(self, x_fft: Tensor, weights: Tensor, l1: Size, l2: Size) -> Tensor:
        """compl_mul2d of the first l1 by l2 modes; a part of the weights does not merge, and is copied."""
        low = corner(x_fft, l1, l2)
        if anywhere(l1 < self.modes) or anywhere(l2 < self.modes):
            weights = corner(weights, l1, l2).contiguous()
        return modes_product(low, weights, merges=not anywhere(x_fft.shape[3] != l2))


class MWTLayer(Module):
    """MWT_CZ2d: x (B, N, N, c, k²) is decomposed down to 2**L by 2**L, and put together again."""

    def __init__(self, k: int, alpha: int, coarsest: int, c: int) -> None:
        self.coarsest = coarsest
        self.A = SparseKernelFourier(k, alpha, c)
        self.B, self.C = SparseKernel(k, c, c), SparseKernel(k, c, c)
        self.T0 = Linear(c * k**2, c * k**2)
        self.ec_s, self.ec_d = Buffer((4 * k**2, k**2)), Buffer((4 * k**2, k**2))
        self.rc_ee, self.rc_eo, self.rc_oe, self.rc_oo = (Buffer((2 * k**2, k**2)) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        sizes = levels(x.shape[1], x.shape[2], self.coarsest)
        upper, lower = [], []
        for height, width in sizes[1:]:
            d, x = self._transform(x, height, width)
            upper.append(self.A(d) + self.B(x))
            lower.append(self.C(d))
        x = self.T0(x.view(*x.shape[:3], x.shape[3] * x.shape[4])).view(*x.shape)

        for i in range(len(sizes) - 2, -1, -1):
            x = x + lower[i]
            x = cat((x, upper[i]), -1)
            x = self._even_odd(x, *sizes[i])
        return x

    def _transform(self, x: Tensor, height: Size, width: Size) -> tuple[Tensor, Tensor]:
        """wavelet_transform: every second row and column, four times."""
        batch, _, whole, c, inner = x.shape
        parts = [narrow(narrow(x, batch, height, whole, c, inner), batch, height, width, c, inner) for _ in range(4)]
        xa = cat(parts, -1)
        del parts
        d = matmul(xa, self.ec_d)
        s = matmul(xa, self.ec_s)
        return d, s

    def _even_odd(self, x: Tensor, height: Size, width: Size) -> Tensor:
        x_ee = matmul(x, self.rc_ee)
        x_eo = matmul(x, self.rc_eo)
        x_oe = matmul(x, self.rc_oe)
        x_oo = matmul(x, self.rc_oo)
        x = x.tape.empty((x.shape[0], height, width, *x_ee.shape[3:]), x.dtype)
        for part in (x_ee, x_eo, x_oe, x_oo):
            assign(x, part.shape, part)
        return x


class MWT2d(SuperResolution):
    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        del checkpointing  # the original never checkpoints
        inputs, outputs = dims.get("in_channels", 1), dims.get("out_channels", 1)
        super().__init__(dims, inputs, outputs)
        hidden, layers = dims.get("hidden_dim", 128), dims.get("n_layers", 6)
        self.c, self.k = dims.get("c", 1), dims.get("k", 6)
        k, alpha, coarsest = self.k, dims.get("alpha", 2), dims.get("L", 0)
        width = self.c * k**2
        factor = dims.get("upsample_factor", 2)
        self.scale = factor if isinstance(factor, int) else factor[0]
        self.last = layers - 1
        self.preprocess = MLP(inputs, hidden * 2, width, dims.get("act", "gelu"))
        self.spectral_layers = Blocks(
            layers, lambda _: MWTLayer(k, alpha, coarsest, self.c), Checkpointing(), lambda i: i == layers - 1, extend=extend
        )
        self.upsample = [Conv(width, width, (3, 3), padding=1), Conv(width, width, (3, 3), padding=1)]
        self.output_projection = [Linear(width, hidden), Linear(hidden, outputs)]

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        dim = self.c * self.k**2
        tall, wide = levels(height, width, 0)[0]

        x_mwt = self.preprocess(x.view(batch, height * width, self.inputs))
        x_mwt = x_mwt.view(batch, dim, height, width)
        if anywhere(tall != height) or anywhere(wide != width):
            x_mwt = pad(x_mwt, batch, dim, tall, wide)
        x_mwt = x_mwt.view(batch, tall, wide, self.c, self.k**2)

        for i, layer in self.spectral_layers.numbered(x.tape):
            x_mwt = layer(x_mwt)
            if i < self.last:
                x_mwt = gelu(x_mwt)

        x_mwt = x_mwt.contiguous().view(batch, dim, tall, wide)
        if anywhere(tall != height) or anywhere(wide != width):
            x_mwt = narrow(x_mwt, batch, dim, height, wide)
            x_mwt = narrow(x_mwt, batch, dim, height, width)

        x_up = self._upsample(x_mwt)
        height, width = x_up.shape[2:]
        x_up = x_up.view(batch, height * width, dim)
        out = self._project(x_up)
        return out.view(batch, height, width, self.outputs)

    def _upsample(self, x: Tensor) -> Tensor:
        x = interpolate(x, x.shape[2] * self.scale, x.shape[3] * self.scale)
        x = self.upsample[0](x)
        x = gelu(x)
        return self.upsample[1](x)

    def _project(self, x: Tensor) -> Tensor:
        x = self.output_projection[0](x, transposed=True)
        x = gelu(x)
        return self.output_projection[1](x)


def smaller(a: Size, b: Size) -> Size:
    """The smaller of the two, for arrays too."""
    return a - (a > b) * (a - b)


def levels(height: Size, width: Size, coarsest: int) -> list[tuple[Size, Size]]:
    """The sizes from the next power of two down to 2**coarsest; an array's smaller elements end in levels of no size at all."""
    tall, wide, halvings = 1, 1, 0
    while anywhere(tall < height) or anywhere(wide < width):
        tall, wide = tall * (1 + (tall < height)), wide * (1 + (wide < width))
        halvings += anywhere(tall // 2**halvings > 1)
    return [(tall // 2**i, wide // 2**i) for i in range(halvings - coarsest + 1)]


NETWORK = MWT2d
