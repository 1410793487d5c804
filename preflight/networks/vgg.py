"""torchvision's VGG as a frozen judge of images (torchvision/models/vgg.py), as far as its deepest layer that is looked at."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from preflight.networks.network import NotModelled
from preflight.tape.activation import in_place
from preflight.tape.module import Conv, Module
from preflight.tape.shaping import max_pool
from preflight.tape.tensor import Buffer, Tensor

#: Convolutions of each of the five stages; their widths are 64, 128, 256, 512 and 512.
STAGES: Mapping[str, Sequence[int]] = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
WIDTHS = (64, 128, 256, 512, 512)


class Vgg(Module):
    """Answers the features under the names in `wanted`: conv3_4 before its activation, relu3_4 after it.

    `copies`: each is a copy of its own, as basicsr/archs/vgg_arch.py makes them.
    """

    def __init__(self, kind: str, wanted: Collection[str], *, copies: bool) -> None:
        if kind not in STAGES:
            raise NotModelled(f"the feature extractor {kind!r} is not modelled, only {', '.join(STAGES)}")
        self.wanted, self.copies = frozenset(wanted), copies
        names = [f"{stage}_{i}" for stage, count in enumerate(STAGES[kind], 1) for i in range(1, count + 1)]
        known = {f"{word}{name}" for name in names for word in ("conv", "relu")}
        if not self.wanted or self.wanted - known:
            raise NotModelled(f"the features {', '.join(sorted(self.wanted - known)) or '(none)'} of {kind} are not modelled")
        self.names = names[: 1 + max(names.index(name[4:]) for name in self.wanted)]
        self.convs, inputs = [], 3
        for name in self.names:
            width = WIDTHS[int(name[0]) - 1]
            self.convs.append(Conv(inputs, width, (3, 3), padding=1))
            inputs = width
        for _, parameter in self.parameters():
            parameter.requires_grad = False

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, conv in zip(self.names, self.convs, strict=True):
            if name.endswith("_1") and name != "1_1":
                x = max_pool(x, 2)
            x = conv(x)
            self._look(f"conv{name}", x, found)
            if name == self.names[-1] and f"relu{name}" not in self.wanted:
                break
            x = in_place(x)
            self._look(f"relu{name}", x, found)
        return found

    def _look(self, name: str, x: Tensor, found: dict[str, Tensor]) -> None:
        if name in self.wanted:
            found[name] = x.contiguous() if self.copies else x


class Normalized(Module):
    """(x - mean) / std, each a number a channel."""

    def __init__(self) -> None:
        self.mean, self.std = Buffer((1, 3, 1, 1)), Buffer((1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / 1.0
