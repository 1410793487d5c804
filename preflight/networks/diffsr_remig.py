"""DiffSR's ReMG (models/remg/models): UNetModelSwin, whose noisy input goes through a multigrid corrector (m2no.py) first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from preflight.networks.diffsr_common import need
from preflight.networks.diffsr_m2no2d import WaveletOperator, WholeLayerNorm, conv
from preflight.networks.diffsr_resshift import TimeEmbed, UNetModelSwin
from preflight.networks.diffsr_swin_unet import normalization
from preflight.networks.network import Shape
from preflight.tape.activation import sigmoid, silu
from preflight.tape.loss import relative_lp_loss
from preflight.tape.module import Checkpointing, Conv, Linear, Module
from preflight.tape.shaping import cat, chunk, narrow
from preflight.tape.tensor import Parameter, Tape, Tensor


class GridBlock(Module):
    def __init__(self, channels: int, iterations: int, emb_channels: int, *, mode: str, bias: bool) -> None:
        self.norm = normalization(channels)
        self.S = [conv(channels, channels, mode=mode, bias=bias) for _ in range(iterations)]
        self.emb = [Linear(emb_channels, 2 * channels)]

    def forward(self, A: Module, f: Tensor, emb: Tensor, u: Tensor | None = None) -> tuple[Tensor, Tensor]:
        gamma, beta = (part.view(*part.shape, 1, 1) for part in chunk(self._embed(emb), 2, 1))
        for smooth in self.S:
            if u is None:
                h = smooth(self.norm(f))
                u = (1 + gamma) * h + beta
            else:
                res = f - A(u)
                h = smooth(self.norm(res))
                u = u + (1 + gamma) * h + beta
        assert u is not None
        r = f - A(u)
        return u, r

    def _embed(self, emb: Tensor) -> Tensor:
        emb = silu(emb)
        return self.emb[0](emb)


class MultiGrid(Module):
    """Each level's correction is weighted by a gate that heeds the time."""

    def __init__(
        self,
        channels: int,
        levels: Sequence[int],
        operator: WaveletOperator,
        emb: int,
        sizes: Sequence[int],
        mode: str,
        *,
        bias: bool,
    ) -> None:
        self.operator = operator
        self.A = conv(channels, channels, mode=mode, bias=bias)
        self.pre_S = GridBlock(channels, 1, emb, mode=mode, bias=bias)
        self.post_S = GridBlock(channels, 1, emb, mode=mode, bias=bias)
        self.grid_list = [GridBlock(channels, iterations, emb, mode=mode, bias=bias) for iterations in levels]
        self.norm_list = [WholeLayerNorm(channels, sizes[0] // 2**i, sizes[1] // 2**i) for i in range(len(levels))]
        self.level_gate = Parameter((len(levels),))
        self.level_proj = Linear(emb, len(levels))

    def forward(self, f: Tensor, emb: Tensor) -> Tensor:
        operator = self.operator
        u_n, r_n = self.pre_S(self.A, f, emb)
        u_list, r_list = [u_n], [r_n]
        for i, grid in enumerate(self.grid_list):
            u = operator.restrict(u_list[i], first=i == 0)
            u, r = grid(self.A, u, emb)
            u_list.append(u)
            r_list.append(r)

        gates = sigmoid(self.level_gate.view(1, len(self.grid_list)) + self.level_proj(emb))
        last = len(self.grid_list)
        for i in range(last, 0, -1):
            up = operator.prolongate(u_list[i], first=i < last)
            w = narrow(gates, gates.shape[0]).view(gates.shape[0], 1, 1, 1)
            u_list[i - 1] = self.norm_list[i - 1](u_list[i - 1] + w * up)

        u_n, _ = self.post_S(self.A, f, emb, u_list[0])
        return u_n


class Corrector(Module):
    """m2no.py: M2NO2d, the S of gaussian_diffusion.py."""

    def __init__(self, dims: Mapping[str, Any]) -> None:
        need(dims, "in_channels")
        channels, base = dims["in_channels"], dims.get("base_channels", 64)
        bias = dims.get("bias", True)
        self.time_mlp = TimeEmbed(base)
        self.in_proj = Conv(2 * channels, base, (1, 1))
        operator = WaveletOperator(dims.get("c", 4), dims.get("k", 3))
        levels, sizes = dims.get("grid_levels", [1, 1, 1]), dims.get("resolutions", (64, 64))
        self.mg = MultiGrid(base, levels, operator, base * 4, sizes, mode=dims.get("padding_mode", "zeros"), bias=bias)
        self.out_norm, self.out_conv = normalization(base), Conv(base, channels, (1, 1))

    def forward(self, x: Tensor, r: Tensor, t: Tensor) -> Tensor:
        emb = self.time_mlp(t)
        h = self.in_proj(cat([r, x], 1))
        h = self.mg(h, emb)
        return self._out(h)

    def _out(self, x: Tensor) -> Tensor:
        x = self.out_norm(x)
        x = silu(x)
        return self.out_conv(x)


class ReMG(UNetModelSwin):
    """`m2no_params` are the corrector's dimensions, as in the config's `diffusion.params`.

    The original's optimizer never sees the corrector, though its gradients are made: it counts as trained here, and the two states
    that are not are a few MiB. The physical residual, made without gradients from the fields alone, is left out.
    """

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        super().__init__(dims, checkpointing, extend=extend)
        corrector = dims.get("m2no_params")
        self.S = Corrector(corrector) if corrector is not None else None

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        if self.S is None:
            return super().loss(tape, shape, dtype)
        high = (shape.batch, self.outputs, shape.height, shape.width)
        x, y = tape.empty(high, dtype), tape.empty(high, dtype)
        timesteps = tape.empty((shape.batch,), "int64")
        noise = tape.empty(high, dtype)
        noisy = self._noisy(y, x, timesteps, noise)
        output = self(noisy, timesteps, x)
        return relative_lp_loss(output, y)

    def _noisy(self, u_0: Tensor, u: Tensor, timesteps: Tensor, noise: Tensor) -> Tensor:
        """gaussian_diffusion.py: q_sample_consistent."""
        assert self.S is not None
        tape, each = u_0.tape, (u_0.shape[0], 1, 1, 1)
        r = u_0 - u
        e = self.S(u_0, r, timesteps)
        return u_0 + tape.empty(each, "fp32") * e + tape.empty(each, "fp32") * noise


NETWORK = ReMG
