"""Facts about GPUs, networks, text encoders and VAEs: `catalog/*/ID.yaml` as frozen types, found by id or alias.

A fact's `source` says where its figures come from. Names are compared without case, spaces, dashes and underscores,
and GPU names without the vendor's words, so that `NVIDIA A100-SXM4-80GB` and `a100 80gb` are one card.
An exact id opens one file; only an alias makes the lookup read its folder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from preflight import paths
from preflight.finding import ConfigError, Finding, did_you_mean

Dtype = Literal["fp32", "bf16", "fp16"]
Folder = Literal["gpus", "networks", "components"]

_VENDOR_WORDS = re.compile(r"\b(nvidia|geforce|tesla|quadro)\b[\s_-]*", re.IGNORECASE)
_SIZE = re.compile(r"(\d)gi?b?$")
_SIZE_WORD = re.compile(r"[\s_-]+\d+\s?gi?b?(?=$|[\s_-])", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One card as torch sees it.

    `memory_bytes` is `torch.cuda.get_device_properties().total_memory`; `context_bytes` is what a process holds there
    besides its tensors (CUDA context and loaded kernels). `bf16` and `fp8`: tensor cores for them;
    `flash_attention`: torch's fused flash kernel runs (compute capability 8.0 and later). `tflops` is dense 16-bit
    throughput with float32 accumulation, on tensor cores where there are any; `tflops_fp32` is plain float32.
    """

    id: str
    name: str
    aliases: tuple[str, ...]
    memory_bytes: int
    architecture: Literal["pascal", "volta", "turing", "ampere", "ada", "hopper", "blackwell"]
    compute_capability: str
    bf16: bool
    fp8: bool
    flash_attention: bool
    tflops: float
    tflops_fp32: float
    context_bytes: int
    source: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoder:
    """A text or image encoder of a network: a component's id, and the dtype the original project loads it in."""

    component: str
    dtype: Dtype


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """One trainable network: a family (`networks/FAMILY.py`) and its dimensions.

    `dims` are the constructor's arguments; with `free_dims` the config gives them. `experts` of this size exist, one
    is trained at a time. Frames are `frame_step` * n + `frame_offset` (no step: single images), height and width
    multiples of `pixel_multiple`, where the family fixes them. `trained_sizes` are (height, width) the authors state.
    `parameters` counts one expert.
    """

    id: str
    name: str
    aliases: tuple[str, ...]
    family: str
    dims: Mapping[str, Any]
    source: Mapping[str, str]
    free_dims: bool = False
    experts: int = 1
    vae: str | None = None
    text_encoders: tuple[Encoder, ...] = ()
    image_encoder: Encoder | None = None
    text_tokens: int | None = None
    frame_step: int | None = None
    frame_offset: int = 1
    pixel_multiple: int | None = None
    trained_sizes: tuple[tuple[int, int], ...] = ()
    max_frames: int | None = None
    parameters: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Stride:
    """Pixels (or frames) of the input per element of the latent."""

    frames: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Component:
    """A frozen part beside the network. VAEs have `stride` and `latent_channels`, encoders `max_tokens` and `width`."""

    id: str
    name: str
    aliases: tuple[str, ...]
    kind: Literal["text-encoder", "image-encoder", "vae"]
    parameters: int
    dtype: Dtype
    source: Mapping[str, str]
    stride: Stride | None = None
    latent_channels: int | None = None
    max_tokens: int | None = None
    width: int | None = None


Fact = TypeVar("Fact", Gpu, Network, Component)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Shelf:
    """How one folder is spoken of. `nested` names the fields that are types of their own."""

    folder: Folder
    word: str
    problem: str
    fix: str
    nested: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)


def _encoder(data: Mapping[str, Any]) -> Encoder:
    return Encoder(component=data["component"], dtype=data["dtype"])


_GPUS = _Shelf(folder="gpus", word="GPU", problem="unknown-gpu", fix="give its memory with --gpu-memory, or name one of")
_NETWORKS = _Shelf(
    folder="networks",
    word="model",
    problem="unknown-model",
    fix="name one of",
    nested={"text_encoders": lambda items: tuple(map(_encoder, items)), "image_encoder": _encoder},
)
_COMPONENTS = _Shelf(
    folder="components",
    word="component",
    problem="unknown-component",
    fix="name one of",
    nested={"stride": lambda data: Stride(**data)},
)


def gpu(name: str) -> Gpu:
    """The GPU with this id or alias; a name without a memory size will do where only one size exists.

    Raises ConfigError `unknown-gpu` for a name that no card has, or that several have (V100 is 16 or 32 GB).
    """
    return _load(Gpu, _GPUS, _find(_GPUS, name))


def custom_gpu(memory_gib: float, name: str | None = None) -> Gpu:
    """A card of `memory_gib` as torch reports it; the facts of `name` where given, else of no card in particular.

    Raises ConfigError `unknown-gpu` for a name that no card has.
    """
    memory = int(memory_gib * 2**30)
    if name is not None:
        return replace(gpu(name), memory_bytes=memory)
    likeness = gpu("a100-80gb")  # today's common denominator: fused attention and bfloat16, but no fp8
    source = MappingProxyType({"memory": "the caller's own figure", "rest": f"taken to be as {likeness.id}"})
    return replace(likeness, id=f"{memory_gib:g} GiB GPU", name=f"GPU of {memory_gib:g} GiB", memory_bytes=memory, source=source)


def remarks(card: Gpu) -> tuple[Finding, ...]:
    """What is assumed about a card of which only the memory is known."""
    if "rest" not in card.source:
        return ()
    message = f"Only the memory of the GPU is given; in everything else it is {card.source['rest']}."
    return (Finding(id="gpu-likeness", severity="note", message=message),)


def network(name: str) -> Network:
    """The network with this id or alias (hub names such as `Wan-AI/Wan2.2-T2V-A14B` are aliases).

    Raises ConfigError `unknown-model`.
    """
    return _load(Network, _NETWORKS, _find(_NETWORKS, name))


def component(name: str) -> Component:
    """The text encoder, image encoder or VAE with this id or alias. Raises ConfigError `unknown-component`."""
    return _load(Component, _COMPONENTS, _find(_COMPONENTS, name))


def gpus() -> tuple[Gpu, ...]:
    """Every GPU, by id."""
    return tuple(_load(Gpu, _GPUS, id_) for id_ in _ids("gpus"))


def networks() -> tuple[Network, ...]:
    """Every network, by id."""
    return tuple(_load(Network, _NETWORKS, id_) for id_ in _ids("networks"))


def components() -> tuple[Component, ...]:
    """Every component, by id."""
    return tuple(_load(Component, _COMPONENTS, id_) for id_ in _ids("components"))


def fold(name: str) -> str:
    """`name` as names are compared: lower case, no spaces, dashes, underscores or vendor's words, `32 GiB` as `32gb`."""
    return _SIZE.sub(r"\1gb", re.sub(r"[\s_-]+", "", _VENDOR_WORDS.sub("", name)).lower())


def _find(shelf: _Shelf, name: str) -> str:
    ids = _ids(shelf.folder)
    if name in ids:
        return name
    word = fold(name)
    exact = {fold(id_): id_ for id_ in ids}
    if word in exact:
        return exact[word]
    aliases = _aliases(shelf.folder)
    if word in aliases:
        return aliases[word]
    if shelf is _GPUS:
        variants = sorted(_without_size().get(word, ()))
        if len(variants) == 1:
            return variants[0]
        if variants:
            message = f"GPU {name!r} is sold with several memory sizes; say which: {', '.join(variants)}."
            raise ConfigError(Finding(id=shelf.problem, severity="error", message=message))
    raise _unknown(shelf, name, (*ids, *aliases))


def _unknown(shelf: _Shelf, name: str, known: tuple[str, ...]) -> ConfigError:
    ids = _ids(shelf.folder)
    if shelf is _NETWORKS and fold(name) in _not_modelled():
        message = f"Model {name!r} ({_not_modelled()[fold(name)]}) is not modelled yet."
        return ConfigError(Finding(id=shelf.problem, severity="error", message=message))
    guess = did_you_mean(fold(name), known)
    meant = guess if guess is None or guess in ids else _aliases(shelf.folder)[guess]
    message = f"{shelf.word} {name!r} is not in the catalog" + (f"; did you mean {meant}?" if meant else ".")
    fix = f"{shelf.fix}: {', '.join(ids)}"
    return ConfigError(
        Finding(id=shelf.problem, severity="error", message=message[0].upper() + message[1:], fix=fix),
    )


@cache
def _ids(folder: Folder) -> tuple[str, ...]:
    names = (entry.name for entry in (paths.catalog() / folder).iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


@cache
def _aliases(folder: Folder) -> Mapping[str, str]:
    return {fold(alias): id_ for id_ in _ids(folder) for alias in _read(folder, id_)["aliases"]}


@cache
def _not_modelled() -> Mapping[str, str]:
    """Names in trainers' configs of networks that nobody has written yet, each with the network's own name."""
    import yaml

    names: dict[str, list[str]] = yaml.safe_load((paths.catalog() / "not-modelled.yaml").read_bytes())["names"]
    return {fold(alias): name for name, aliases in names.items() for alias in (name, *aliases)}


@cache
def _without_size() -> Mapping[str, set[str]]:
    """GPU names less their memory size (`V100-SXM2-32GB` is `v100sxm2` too), each with the ids that it may mean."""
    found: dict[str, set[str]] = {}
    for id_ in _ids("gpus"):
        for name in (id_, *_read("gpus", id_)["aliases"]):
            found.setdefault(fold(_SIZE_WORD.sub("", name)), set()).add(id_)
    return found


def _load(cls: type[Fact], shelf: _Shelf, id_: str) -> Fact:
    data = _read(shelf.folder, id_)
    return cls(**{key: shelf.nested.get(key, _frozen)(value) for key, value in data.items()})


@cache
def _read(folder: Folder, id_: str) -> dict[str, Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = (paths.catalog() / folder / f"{id_}.yaml").read_bytes()
    data: dict[str, Any] = yaml.load(text, Loader=loader)  # noqa: S506  # one of the two safe loaders, the fast one first
    return data


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return MappingProxyType({key: _frozen(item) for key, item in value.items()})
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
