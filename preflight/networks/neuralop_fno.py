"""neuraloperator's Fourier neural operator (neuralop/models/fno.py, layers/fno_block.py).

The grid is the last of (frames, height, width), as many as there are numbers in `n_modes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from preflight.networks.network import Network, NotModelled, Shape, check_modelled, constructor_arguments
from preflight.networks.neuralop_layers import NORMS, SKIPS, ChannelMLP, SpectralConv
from preflight.tape import activation
from preflight.tape.loss import mse_loss
from preflight.tape.meter import Size
from preflight.tape.module import Blocks, Checkpointing, Module
from preflight.tape.shaping import cat, narrow, pad
from preflight.tape.tensor import Tape, Tensor

# models/fno.py: FNO.__init__; `...` has no default there
ARGUMENTS: Mapping[str, Any] = {
    "n_modes": ...,
    "in_channels": ...,
    "out_channels": ...,
    "hidden_channels": ...,
    "n_layers": 4,
    "lifting_channel_ratio": 2,
    "projection_channel_ratio": 2,
    "positional_embedding": "grid",
    "non_linearity": "gelu",
    "norm": None,
    "complex_data": False,
    "use_channel_mlp": True,
    "channel_mlp_dropout": 0,
    "channel_mlp_expansion": 0.5,
    "channel_mlp_skip": "soft-gating",
    "fno_skip": "linear",
    "resolution_scaling_factor": None,
    "domain_padding": None,
    "fno_block_precision": "full",
    "stabilizer": None,
    "max_n_modes": None,
    "factorization": None,
    "rank": 1.0,
    "fixed_rank_modes": False,
    "implementation": "factorized",
    "decomposition_kwargs": None,
    "separable": False,
    "preactivation": False,
    "conv_module": "SpectralConv",
}
CONSTRUCTOR = "neuralop's FNO"
MODELLED: Mapping[str, Sequence[Any]] = {
    "positional_embedding": ("grid", None),
    "non_linearity": tuple(activation.BY_NAME),
    "norm": (None, "group_norm", "instance_norm", "batch_norm"),
    "complex_data": (False,),
    "channel_mlp_skip": ("soft-gating", "linear", "identity", None),
    "fno_skip": ("soft-gating", "linear", "identity", None),
    "resolution_scaling_factor": (None,),
    "fno_block_precision": ("full",),
    "stabilizer": (None, "tanh"),
    "factorization": (None, "Dense", "dense"),
    "separable": (False,),
    "conv_module": ("SpectralConv",),
}


class FNOBlock(Module):
    """One layer of layers/fno_block.py: FNOBlocks."""

    def __init__(self, arguments: Mapping[str, Any], *, last: bool) -> None:
        channels, modes = arguments["hidden_channels"], arguments["n_modes"]
        self.convs = SpectralConv(channels, modes, arguments["max_n_modes"])
        fno_skip, mlp_skip, norm = arguments["fno_skip"], arguments["channel_mlp_skip"], arguments["norm"]
        mlp = arguments["use_channel_mlp"]
        self.fno_skips = SKIPS[fno_skip](channels, len(modes)) if fno_skip else None
        self.channel_mlp = (
            ChannelMLP(
                channels,
                channels,
                round(channels * arguments["channel_mlp_expansion"]),
                probability=arguments["channel_mlp_dropout"],
            )
            if mlp
            else None
        )
        self.channel_mlp_skips = SKIPS[mlp_skip](channels, len(modes)) if mlp and mlp_skip else None
        self.norm = [NORMS[norm](channels), NORMS[norm](channels)] if norm else None
        self.non_linearity = activation.BY_NAME[arguments["non_linearity"]]
        self.stabilizer, self.preactivation, self.last = arguments["stabilizer"], arguments["preactivation"], last

    def forward(self, x: Tensor) -> Tensor:
        if self.preactivation:
            return self.forward_with_preactivation(x)
        return self.forward_with_postactivation(x)

    def forward_with_postactivation(self, x: Tensor) -> Tensor:
        x_skip_fno = self.fno_skips(x) if self.fno_skips is not None else None
        x_skip_channel_mlp = self.channel_mlp_skips(x) if self.channel_mlp_skips is not None else None
        if self.stabilizer == "tanh":
            x = activation.tanh(x)
        x_fno = self.convs(x)
        if self.norm is not None:
            x_fno = self.norm[0](x_fno)
        x = x_fno + x_skip_fno if x_skip_fno is not None else x_fno
        if not self.last:
            x = self.non_linearity(x)
        x = self._mixed(x, x_skip_channel_mlp)
        if self.norm is not None:
            x = self.norm[1](x)
        if not self.last:
            x = self.non_linearity(x)
        return x

    def forward_with_preactivation(self, x: Tensor) -> Tensor:
        x = self.non_linearity(x)
        if self.norm is not None:
            x = self.norm[0](x)
        x_skip_fno = self.fno_skips(x) if self.fno_skips is not None else None
        x_skip_channel_mlp = self.channel_mlp_skips(x) if self.channel_mlp_skips is not None else None
        if self.stabilizer == "tanh":
            x = activation.tanh(x)
        x_fno = self.convs(x)
        x = x_fno + x_skip_fno if x_skip_fno is not None else x_fno
        if not self.last:
            x = self.non_linearity(x)
        if self.norm is not None:
            x = self.norm[1](x)
        return self._mixed(x, x_skip_channel_mlp)

    def _mixed(self, x: Tensor, skip: Tensor | None) -> Tensor:
        if self.channel_mlp is None:
            return x
        return self.channel_mlp(x) + skip if skip is not None else self.channel_mlp(x)


class FNO(Network):
    """Built from the arguments of neuralop.models.FNO; raises NotModelled for the values that MODELLED leaves out."""

    def __init__(self, dims: Mapping[str, Any], checkpointing: Checkpointing, *, extend: bool = True) -> None:
        arguments = constructor_arguments(dims, ARGUMENTS, CONSTRUCTOR)
        check_modelled(arguments, MODELLED, CONSTRUCTOR)
        hidden, layers = arguments["hidden_channels"], arguments["n_layers"]
        self.dimensions = len(arguments["n_modes"])
        if self.dimensions not in (1, 2, 3):
            raise NotModelled(f"{CONSTRUCTOR} over {self.dimensions} dimensions is not modelled, only over 1, 2 or 3")
        self.inputs = arguments["in_channels"]
        self.grid_embedding = arguments["positional_embedding"] == "grid"
        self.padding = _padding(arguments["domain_padding"], self.dimensions)
        self.grid: list[Tensor] = []
        self.fno_blocks = Blocks(
            layers,
            lambda i: FNOBlock(arguments, last=i == layers - 1),
            checkpointing,
            kind=lambda i: i == layers - 1,
            extend=extend,
        )
        lifted, projected = (int(arguments[f"{name}_channel_ratio"] * hidden) for name in ("lifting", "projection"))
        name = arguments["non_linearity"]
        self.lifting = ChannelMLP(
            self.inputs + self.dimensions * self.grid_embedding,
            hidden,
            lifted,
            layers=2 if lifted else 1,
            non_linearity=name,
        )
        self.projection = ChannelMLP(hidden, arguments["out_channels"], projected, non_linearity=name)

    @staticmethod
    def pixel_step(dims: Mapping[str, Any]) -> int:
        del dims
        return 2  # any grid will do; even ones transform fast

    def loss(self, tape: Tape, shape: Shape, dtype: str) -> Tensor:
        grid = (shape.frames, shape.height, shape.width)[-self.dimensions :]
        out = self(tape.empty((shape.batch, self.inputs, *grid), dtype))
        return mse_loss(out.float(), tape.empty(out.shape, "fp32"))

    def forward(self, x: Tensor) -> Tensor:
        if self.grid_embedding:
            x = self._embedded(x)
        x = self.lifting(x)
        unpadded = x.shape
        if self.padding:
            x = pad(x, *x.shape[:2], *(_padded(n, p) for n, p in zip(x.shape[2:], self.padding, strict=True)))
        for block in self.fno_blocks.walk(x.tape):
            x = block(x)
        for i, fraction in enumerate(self.padding, start=2):
            if fraction:
                x = narrow(x, *unpadded[: i + 1], *x.shape[i + 1 :])
        if any(self.padding[1:]):
            x = x.contiguous()  # flattening a part of the padded grid copies it, unless only its first dimension was padded
        return self.projection(x)

    def _embedded(self, x: Tensor) -> Tensor:
        """layers/embeddings.py: GridEmbeddingND, which keeps its grid from step to step."""
        batch, _, *size = x.shape
        self.grid = [x.tape.empty((1, 1, *size), x.dtype) for _ in size]
        grids = [x.tape.empty((batch, 1, *size), x.dtype) for _ in size]
        return cat((x, *grids), 1)


def _padding(fraction: float | Sequence[float] | None, dimensions: int) -> Sequence[float]:
    """The fraction of each dimension that is added on either side; empty without padding."""
    if isinstance(fraction, list | tuple) and len(fraction) != dimensions:
        raise ValueError(f"domain_padding has {len(fraction)} numbers for {dimensions} dimensions")
    fractions = [0] if fraction is None else [fraction] * dimensions if isinstance(fraction, int | float) else fraction
    return fractions if sum(fractions) > 0 else ()


def _padded(size: Size, fraction: float) -> Size:
    """layers/padding.py: DomainPadding, on both sides."""
    return size + 2 * (round(fraction * size) if isinstance(size, int) else (fraction * size).round().astype(size.dtype))


NETWORK = FNO
