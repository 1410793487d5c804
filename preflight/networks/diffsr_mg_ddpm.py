"""DiffSR's MG-DDPM (models/mg_ddpm/m2no2d.py, diffusion.py): the multigrid cycles of M2NO2d, told the timestep."""

from __future__ import annotations

from collections.abc import Mapping
from math import lcm
from typing import Any

from preflight.networks.diffsr_common import need, to_channels_first, to_channels_last
from preflight.networks.diffsr_ddpm import TimeEmbedding
from preflight.networks.diffsr_diffusion import Diffusion
from preflight.networks.diffsr_m2no2d import MultiGrid, WaveletOperator
from preflight.tape.activation import gelu, silu
from preflight.tape.module import Blocks, Checkpointing, Linear, Module
from preflight.tape.tensor import Tensor


class TimeEmbed(Module):
    def __init__(self, dim: int) -> None:
        self.embedding = TimeEmbedding(dim)
        self.linear_1, self.linear_2 = Linear(dim, dim * 4), Linear(dim * 4, dim)

    def forward(self, time: Tensor) -> Tensor:
        x = self.embedding(time)
        x = self.linear_1(x)
        x = silu(x)
        return self.linear_2(x)


class MGDDPM(Diffusion):
    losses = {"l1": "l1", "l2": "mse"}  # noqa: RUF012  # never changed

    @staticmethod
    def pixel_step(dims: Mapping[str, Any]) -> int:
        """Each level of the grid halves it."""
        return lcm(2 ** len(dims.get("grid_levels", ())), Diffusion.pixel_step(dims))

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        del checkpointing  # the original never checkpoints
        need(dims, "in_channels", "out_channels", "k", "c", "num_layer", "grid_levels")
        inputs, outputs = dims["in_channels"], dims["out_channels"]
        super().__init__(dims, inputs, outputs)
        c, k, time_dim = dims["c"], dims["k"], dims.get("time_emb_dim", 128)
        hidden = c * k**2
        operator = WaveletOperator(c, k)

        def grid(_: int) -> MultiGrid:
            return MultiGrid(
                hidden,
                dims["grid_levels"],
                operator,
                mode="zeros",
                bias=True,
                norm=False,
                resolutions=None,
                time_dim=time_dim,
            )

        self.time_embed = TimeEmbed(time_dim)
        self.L_in, self.L_hidden, self.L_out = Linear(inputs, hidden), Linear(hidden, hidden), Linear(hidden, outputs)
        self.conv_list = Blocks(dims["num_layer"], grid, Checkpointing(), extend=extend)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        t_emb = self.time_embed(time)
        u = self.L_in(to_channels_last(x), transposed=True)
        u = to_channels_first(u)
        for block in self.conv_list.walk(x.tape):
            u = block(u, t_emb)
            u = gelu(u)
        u = to_channels_last(u)
        u = gelu(self.L_hidden(u))
        u = self.L_out(u)
        return to_channels_first(u)


NETWORK = MGDDPM
