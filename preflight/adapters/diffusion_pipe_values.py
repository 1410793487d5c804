"""What diffusion-pipe's words mean: its model types, and the values of its two TOML files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from preflight.adapters.conversions import COUNT, SIDE, SILENT, Conversion, RefusedError, real, whole


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One `type` of model: models/TYPE.py.

    `named` are networks by words that must all be in the names of the files, the first that fits; `usual` is taken else, and said
    so where it is a guess (`unsure`). Sides are rounded to `multiple` pixels, frames to `step` * n + 1. `video`: whether more than
    one frame can be trained; `swaps`: whether enable_block_swap is written; `fused`: whether query, key and value are one layer;
    `pairs`: the network for data with control images.
    """

    usual: str
    named: tuple[tuple[tuple[str, ...], str], ...] = ()
    unsure: bool = False
    multiple: int = 16
    step: int = 4
    video: bool = False
    swaps: bool = False
    fused: bool = False
    pairs: str | None = None


#: models/wan/wan.py tells the variants by the checkpoint's config.json and weights, which their names follow.
_WAN = (
    (("skyreels",), "skyreels-v2"),
    (("flf2v",), "flf2v-14B"),
    (("vace", "13b"), "wan2.1-vace-1.3b"),
    (("vace",), "wan2.1-vace-14b"),
    (("fun", "inp", "13b"), "wan2.1-fun-1.3b-inp"),
    (("fun", "inp"), "wan2.1-fun-14b-inp"),
    (("ti2v",), "wan2.2-ti2v-5b"),
    (("13b",), "wan2.1-t2v-1.3b"),
    (("22", "t2v"), "wan2.2-t2v-a14b"),
    (("noise", "t2v"), "wan2.2-t2v-a14b"),
    (("22", "i2v"), "wan2.2-i2v-a14b"),
    (("noise", "i2v"), "wan2.2-i2v-a14b"),
    (("22", "5b"), "wan2.2-ti2v-5b"),
    (("i2v",), "wan2.1-i2v-14b"),
    (("t2v",), "wan2.1-t2v-14b"),
)
#: The same where the names say only that it is Wan 2.2.
WAN22 = "wan2.2-t2v-a14b"
_FLUX = ((("kontext",), "flux.1-kontext-dev"), (("schnell",), "flux.1-schnell"), (("flex1",), "flex.1-alpha"),
         (("flex2",), "flex.2-preview"))  # fmt: skip
_LTX = ((("13b",), "ltx-video-13b"), (("2b",), "ltx-video-2b"), (("097",), "ltx-video-13b"), (("098",), "ltx-video-13b"))

KINDS: Mapping[str, Kind] = {
    "flux": Kind(usual="flux.1-dev", named=_FLUX, swaps=True, pairs="flux.1-kontext-dev"),
    "ltx-video": Kind(usual="ltx-video-2b", named=_LTX, multiple=32, step=8, video=True),
    "hunyuan-video": Kind(usual="hunyuanvideo", video=True, swaps=True, fused=True),
    "sdxl": Kind(usual="sdxl", multiple=32),  # 16 in the trainer, but the UNet halves latents of 8 pixels twice
    "cosmos": Kind(usual="cosmos-1.0", video=True),
    "lumina_2": Kind(usual="lumina-image-2.0", fused=True),
    "wan": Kind(usual="wan2.1-t2v-14b", named=_WAN, unsure=True, video=True, swaps=True),
    "chroma": Kind(usual="chroma1-hd", swaps=True, fused=True),
    "hidream": Kind(usual="hidream-i1", swaps=True),
    "sd3": Kind(usual="sd3-medium", named=((("35", "large"), "sd3.5-large"), (("35",), "sd3.5-medium"))),
    "cosmos_predict2": Kind(usual="cosmos-predict2-2b-text2image", named=((("14b",), "cosmos-predict2-14b-text2image"),
                                                                         (("2b",), "cosmos-predict2-2b-text2image")),
                            unsure=True, swaps=True),
    "anima": Kind(usual="anima", swaps=True),
    "omnigen2": Kind(usual="omnigen2"),
    "qwen_image": Kind(usual="qwen-image", named=((("edit2511",), "Qwen-Image-Edit-2511"), (("edit",), "qwen-image-edit")),
                       swaps=True, pairs="qwen-image-edit"),
    "hunyuan_image": Kind(usual="hunyuanimage-2.1", swaps=True),
    "auraflow": Kind(usual="auraflow", swaps=True),
    "z_image": Kind(usual="z-image", swaps=True, fused=True),
    "hunyuan_video_15": Kind(usual="hunyuanvideo-1.5", video=True, swaps=True, fused=True),
    "flux2": Kind(usual="flux.2-dev", named=((("klein", "9b"), "flux.2-klein-9b"), (("klein",), "flux.2-klein-4b")), swaps=True,
                  fused=True),
    "ernie_image": Kind(usual="ernie-image", swaps=True),
    "ltx2": Kind(usual="ltx-2.3-22b", multiple=32, step=8, video=True, swaps=True),
    "ideogram4": Kind(usual="ideogram4", swaps=True),
    "krea2": Kind(usual="krea2", swaps=True),
    "minimax_h3": Kind(usual="minimax_h3", video=True, swaps=True),
}  # fmt: skip
#: Types that only a fork knows: flet_app/modules/longcat_patch of siraxe/diffusion-pipe-Wizard-GUI.
FORKS: Mapping[str, Kind] = {"longcat": Kind(usual="longcat-video", video=True, swaps=True)}


def network(kind: Kind, names: str) -> tuple[str, bool]:
    """The network that the files called `names` hold, and whether that had to be guessed."""
    plain = re.sub(r"[^a-z0-9]", "", names.lower())
    for words, found in kind.named:
        if all(word in plain for word in words):
            return found, False
    if kind.usual == "wan2.1-t2v-14b" and ("noise" in plain or "wan22" in plain):
        return WAN22, True
    return kind.usual, kind.unsure


def types() -> Conversion:
    """`model.type`: one of train.py's, or a word that only a fork knows, which stays as it is."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise RefusedError(f"one of {', '.join(KINDS)}")
        return value.strip()

    return Conversion(name="model type", read=read, write=lambda value, _: value, schema={"type": "string", "minLength": 1})


#: train.py: get_optimizer; what is not here is a class of pytorch_optimizer, whose name is taken as it stands.
OPTIMIZERS: Mapping[str, tuple[str, int]] = {
    "adamw": ("adamw", 32),
    "adamw8bit": ("adamw", 8),
    "adamw_optimi": ("adamw_optimi", 32),
    "stableadamw": ("stableadamw", 32),
    "sgd": ("sgd", 32),
    "adamw8bitkahan": ("adamw8bitkahan", 32),
    "offload": ("adamw", 32),
    "automagic": ("automagickahan", 32),
}
SPELLED = {"adamw8bitkahan": "AdamW8bitKahan"}


def optimizers() -> Conversion:
    def read(value: Any) -> tuple[str, int]:
        if not isinstance(value, str) or not value.strip():
            raise RefusedError('the name of an optimizer such as "adamw_optimi"')
        word = value.strip().lower()
        return OPTIMIZERS.get(word, (word, 32))

    def write(value: tuple[str, int], _: Any) -> Any:
        word = next((word for word, meaning in OPTIMIZERS.items() if meaning == value), SILENT)
        return SPELLED.get(word, word) if isinstance(word, str) else word

    return Conversion(name="optimizer", read=read, write=write, schema={"type": "string", "minLength": 1})


def checkpoints() -> Conversion:
    """`activation_checkpointing`: whether, and whether a checkpoint's inputs wait on the host ("unsloth")."""
    expected = 'true, false or "unsloth"'
    meanings: Mapping[Any, tuple[bool, bool]] = {True: (True, False), False: (False, False), "unsloth": (True, True)}

    def read(value: Any) -> tuple[bool, bool]:
        if not isinstance(value, bool | str) or value not in meanings:
            raise RefusedError(expected)
        return meanings[value]

    def write(value: tuple[Any, Any], _: Any) -> Any:
        return next((word for word, meaning in meanings.items() if meaning == value), SILENT)

    return Conversion(name="checkpointing", read=read, write=write, schema={"enum": [True, False, "unsloth"]})


def per_size() -> Conversion:
    """One batch, or [[side, batch], …]: a bucket takes the batch of the nearest side."""
    batch, expected = whole(), "a whole number, or a batch for each side such as [[512, 4], [1024, 1]]"

    def read(value: Any) -> Any:
        if not isinstance(value, list):
            return batch.read(value)
        if not value or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
            raise RefusedError(expected)
        return [[whole(1, SIDE).read(side), batch.read(number)] for side, number in value]

    pair = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2, "maxItems": 2}
    number = {"type": "integer", "minimum": 1, "maximum": COUNT}
    schema = {"anyOf": [number, {"type": "array", "items": pair, "minItems": 1}]}
    return Conversion(name="batch per size", read=read, write=lambda value, _: value, schema=schema)


def side_of(value: Any) -> float:
    """The side of a square of the area that one of `resolutions` names. Raises RefusedError."""
    if isinstance(value, list):
        if len(value) != 2:
            raise RefusedError("a side in pixels or [width, height]")
        return float((whole(1, SIDE).read(value[0]) * whole(1, SIDE).read(value[1])) ** 0.5)
    return float(whole(1, SIDE).read(value))


def sides() -> Conversion:
    """`resolutions`: areas, as the side of a square or as [width, height]; reads to the largest side, whole where it is."""
    expected = "a list of sides in pixels, or of [width, height], such as [512] or [[1280, 720]]"

    def read(value: Any) -> Any:
        if not isinstance(value, list) or not value:
            raise RefusedError(expected)
        largest = max(map(side_of, value))
        return int(largest) if largest.is_integer() else largest

    def write(side: Any, raw: Any) -> Any:
        kept = [item for item in raw or [] if side_of(item) < side]
        square = side if isinstance(side, int) else int(side)
        return [*kept, [square, square] if kept and isinstance(kept[0], list) else square]

    side = {"type": "integer", "minimum": 1, "maximum": SIDE}
    either = {"anyOf": [side, {"type": "array", "items": side, "minItems": 2, "maxItems": 2}]}
    return Conversion(name="resolutions", read=read, write=write, schema={"type": "array", "items": either, "minItems": 1})


def frames() -> Conversion:
    """`frame_buckets`: reads to the longest."""
    expected = "a list of numbers of frames such as [1, 33]"

    def read(value: Any) -> int:
        if not isinstance(value, list) or not value:
            raise RefusedError(expected)
        number = whole(1, SIDE)
        return max(int(number.read(item)) for item in value)

    def write(longest: int, raw: Any) -> Any:
        return [*(item for item in raw or [] if item < longest), longest]

    schema = {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": SIDE}, "minItems": 1}
    return Conversion(name="frame buckets", read=read, write=write, schema=schema)


def buckets() -> Conversion:
    """`size_buckets`: [[width, height, frames], …]; reads to the largest."""
    expected = "a list of [width, height, frames] such as [[512, 512, 33]]"

    def read(value: Any) -> tuple[int, int, int]:
        if not isinstance(value, list) or not value or not all(isinstance(item, list) and len(item) == 3 for item in value):
            raise RefusedError(expected)
        width, height, length = max(([whole(1, SIDE).read(n) for n in item] for item in value), key=lambda b: b[0] * b[1] * b[2])
        return width, height, length

    def write(value: tuple[int, int, int], raw: Any) -> Any:
        pixels = value[0] * value[1] * value[2]
        return [*(item for item in raw or [] if item[0] * item[1] * item[2] < pixels), list(value)]

    triple = {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": SIDE}, "minItems": 3, "maxItems": 3}
    return Conversion(name="size buckets", read=read, write=write, schema={"type": "array", "items": triple, "minItems": 1})


def ratios() -> Conversion:
    """`ar_buckets`: widths by heights, or [width, height]."""
    ratio, expected = real(0.01, 100), "a list of ratios or of [width, height], such as [1.0, 1.5] or [[512, 512]]"

    def read(value: Any) -> list[Any]:
        if not isinstance(value, list) or not value:
            raise RefusedError(expected)
        for item in value:
            (side_of if isinstance(item, list) else ratio.read)(item)
        return list(value)

    return Conversion(name="ratios", read=read, write=lambda value, _: value, schema={"type": "array", "minItems": 1})


def ranks() -> Conversion:
    """A rank; with LoKr a very large one, which may be written as 1e6, means whole matrices."""
    inner = whole(1, 10**9)

    def read(value: Any) -> int:
        number = int(value) if isinstance(value, float) and value.is_integer() else value
        return min(SIDE, int(inner.read(number)))

    schema = {"type": "number", "minimum": 1, "maximum": 10**9}
    return Conversion(name="rank", read=read, write=lambda value, _: value, schema=schema)


def stages() -> Conversion:
    """`partition_split`: the first layer of each pipeline stage but the first."""
    layer, expected = whole(1, SIDE), "a list of layers such as [20]"

    def read(value: Any) -> list[int]:
        if not isinstance(value, list) or not value:
            raise RefusedError(expected)
        return [layer.read(item) for item in value]

    schema = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1}
    return Conversion(name="stages", read=read, write=lambda value, _: value, schema=schema)
