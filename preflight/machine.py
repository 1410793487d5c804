"""What the driver says of the GPUs in this machine, by NVML; nothing where there is no driver, or no `pynvml` to ask it with."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from preflight import catalog
from preflight.catalog import Gpu
from preflight.finding import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One GPU. Bytes; `used` without what the driver reserves for itself, `processes` as far as this user may see them.

    `slices` are the sizes of its MIG instances, empty where it is whole; `ecc` is None where it has no such mode.
    """

    index: int
    name: str
    total: int
    used: int
    processes: int
    slices: tuple[int, ...] = ()
    mig: bool = False
    ecc: bool | None = None


def cards(nvml: Any = None) -> tuple[Card, ...]:
    """Every GPU as `nvml` (default: the module pynvml, of nvidia-ml-py) tells of it; none where there is nobody to ask."""
    try:
        nvml = nvml if nvml is not None else _module()
        nvml.nvmlInit()
        try:
            return tuple(_card(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
        finally:
            with suppress(Exception):
                nvml.nvmlShutdown()
    except Exception:  # noqa: BLE001  # whatever a driver raises, the answer is "nobody to ask"
        return ()


def here(gpu: Gpu) -> tuple[Card, ...]:
    """Those of the cards in this machine that are the catalog's `gpu`."""
    return tuple(card for card in cards() if _id(card.name) == gpu.id)


def _id(name: str) -> str | None:
    try:
        return catalog.gpu(name).id
    except ConfigError:
        return None


def _module() -> Any:
    import importlib
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a renamed distribution of the module warns on import
        return importlib.import_module("pynvml")


def _card(nvml: Any, index: int) -> Card:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name = nvml.nvmlDeviceGetName(handle)
    total, used = _memory(nvml, handle)
    mig = _asked(lambda: nvml.nvmlDeviceGetMigMode(handle)[0] == 1, otherwise=False)
    return Card(
        index=index,
        name=name.decode(errors="replace") if isinstance(name, bytes) else str(name),
        total=total,
        used=used,
        processes=_asked(lambda: len(nvml.nvmlDeviceGetComputeRunningProcesses(handle)), otherwise=0),
        slices=_slices(nvml, handle) if mig else (),
        mig=mig,
        ecc=_asked(lambda: bool(nvml.nvmlDeviceGetEccMode(handle)[0]), otherwise=None),
    )


def _memory(nvml: Any, handle: Any) -> tuple[int, int]:
    """Bytes in all and in use. Drivers before 510 know the first version only, which counts their own reserve as used."""
    second = _asked(lambda: nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2), otherwise=None)
    memory = second if second is not None else nvml.nvmlDeviceGetMemoryInfo(handle)
    return int(memory.total), int(memory.used)


def _slices(nvml: Any, handle: Any) -> tuple[int, ...]:
    found = []
    for place in range(_asked(lambda: int(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)), otherwise=0)):
        size = _asked(lambda at=place: _slice(nvml, handle, at), otherwise=None)  # type: ignore[misc]  # the place is bound now
        if size is not None:
            found.append(size)
    return tuple(found)


def _slice(nvml: Any, handle: Any, place: int) -> int:
    return int(nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)).total)


def _asked(question: Callable[[], T], *, otherwise: T) -> T:
    """The answer, or `otherwise` of a GPU or driver that does not know the question."""
    try:
        return question()
    except Exception:  # noqa: BLE001  # NVMLError_NotSupported and its like, whose classes are the module's own
        return otherwise
