"""What the driver says of the GPUs here: a driver is a value with NVML's functions, as pynvml has them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflight.machine import Card, cards
from preflight.pipeline import inspect
from preflight.settings import machine_gpu
from preflight.units import GIB

CONFIG = Path(__file__).parent / "checks" / "positive" / "bfloat16.yaml"
A100 = "NVIDIA A100-SXM4-80GB"
TOTAL = 80 * GIB  # NVML's 81,920 MiB


def driver(*gpus: dict[str, Any], raises: type[Exception] | None = None) -> Any:
    """A driver with these GPUs. What a GPU leaves out, it does not support; `raises` on the first call."""

    def asked(handle: dict[str, Any], name: str) -> Any:
        if name not in handle:
            raise RuntimeError("Not Supported")
        return handle[name]

    def init() -> None:
        if raises is not None:
            raise raises("no driver")

    def memory(handle: dict[str, Any], version: int | None = None) -> Any:
        if version is not None and "reserved" not in handle:
            raise RuntimeError("Function Not Found")
        extra = handle.get("reserved", 0) if version is None else 0
        return SimpleNamespace(total=handle.get("total", TOTAL), used=handle.get("used", 0) + extra)

    return SimpleNamespace(
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlMemory_v2=2,
        nvmlDeviceGetCount=lambda: len(gpus),
        nvmlDeviceGetHandleByIndex=lambda index: gpus[index],
        nvmlDeviceGetName=lambda handle: handle.get("name", A100),
        nvmlDeviceGetMemoryInfo=memory,
        nvmlDeviceGetComputeRunningProcesses=lambda handle: asked(handle, "processes"),
        nvmlDeviceGetMigMode=lambda handle: (asked(handle, "mig"), 0),
        nvmlDeviceGetMaxMigDeviceCount=lambda _: 7,
        nvmlDeviceGetMigDeviceHandleByIndex=lambda handle, place: {"total": asked(handle, "slices")[place]},
        nvmlDeviceGetEccMode=lambda handle: (asked(handle, "ecc"), 0),
    )


def told(nvml: Any, monkeypatch: pytest.MonkeyPatch, **given: Any) -> list[str]:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    found = inspect(str(CONFIG), **given).findings
    return [
        f"{finding.severity} {finding.id}: {finding.message}" + (f" ({finding.fix})" if finding.fix else "")
        for finding in found
        if finding.id.startswith("gpu-") and finding.id != "gpu-likeness"
    ]


def test_a_card_is_what_its_driver_says() -> None:
    nvml = driver({"name": A100.encode(), "used": 3, "reserved": 5, "processes": [1, 2], "mig": 0, "ecc": 1})
    assert cards(nvml) == (Card(index=0, name=A100, total=TOTAL, used=3, processes=2, ecc=True),)


def test_an_old_driver_or_a_small_card_answers_what_it_can() -> None:
    assert cards(driver({"used": 7})) == (Card(index=0, name=A100, total=TOTAL, used=7, processes=0),)


@pytest.mark.parametrize("nvml", [driver(raises=RuntimeError), driver(raises=OSError), object(), driver()])
def test_without_a_driver_there_are_no_cards(nvml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cards(nvml) == ()
    assert told(nvml, monkeypatch) == []


def test_without_the_module_there_are_no_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert cards() == ()


def test_the_smallest_card_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver({}, {"name": "Tesla T4", "total": 15 * GIB}))
    assert machine_gpu() == "Tesla T4"


def test_nothing_is_said_of_a_free_card_or_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(driver({"used": 100 * 2**20, "mig": 0, "ecc": 1}), monkeypatch) == []
    assert told(driver({"name": "Tesla T4", "total": 15 * GIB, "used": 14 * GIB}), monkeypatch) == []
    assert told(driver({"name": "Voodoo 3", "total": 16 * 2**20}), monkeypatch) == []


def test_what_others_hold_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    (said,) = told(driver({"used": 12 * GIB, "processes": [4711]}), monkeypatch)
    assert said.startswith(
        "note gpu-in-use: NVIDIA A100 80 GB is here, but 12.00 GiB of GPU 0 are in use by 1 other process, which leaves "
    )
    assert "CUDA_VISIBLE_DEVICES" not in said


def test_it_is_a_warning_where_the_rest_is_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    (said,) = told(driver({"used": 70 * GIB}, {}, {"used": 20 * GIB}), monkeypatch)
    assert said.startswith("warning gpu-in-use: ")
    assert said.endswith(" usable, and 1 other GPU in use. (CUDA_VISIBLE_DEVICES=1)")


def test_mig_instances_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    (said,) = told(driver({"mig": 1, "slices": [10 * GIB - 1, 20 * GIB - 1]}), monkeypatch)
    assert said == (
        "warning gpu-here: GPU 0 of this machine, NVIDIA A100 80 GB, is divided by MIG into 2 instances, the largest of 20.00 GiB,"
        " and a process sees one of them. (--gpu-memory 19.99)"
    )


def test_less_memory_than_the_catalogs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ecc = driver({"name": "NVIDIA RTX A6000", "total": 45 * GIB, "ecc": 1})
    (said,) = told(ecc, monkeypatch, gpu="a6000-48gb")
    assert said == (
        "warning gpu-here: GPU 0 of this machine, NVIDIA RTX A6000, has 45.00 GiB with ECC on,"
        " less than the 47.40 GiB that are judged. (--gpu-memory 45.00)"
    )
    assert told(driver({"name": "NVIDIA RTX A6000", "total": 48 * GIB, "ecc": 0}), monkeypatch, gpu="a6000-48gb") == []


@given(st.lists(st.fixed_dictionaries({}, optional={
    "name": st.one_of(st.text(max_size=20), st.binary(max_size=20)),
    "used": st.integers(0, TOTAL),
    "reserved": st.integers(0, GIB),
    "processes": st.lists(st.integers(1, 9)),
    "mig": st.sampled_from([0, 1]),
    "slices": st.lists(st.integers(1, TOTAL), max_size=7),
    "ecc": st.sampled_from([0, 1]),
}), max_size=4))  # fmt: skip
def test_no_driver_stops_a_check(gpus: list[dict[str, Any]]) -> None:
    found = cards(driver(*gpus))
    assert len(found) == len(gpus)
    assert all(0 <= card.used <= card.total + GIB for card in found)
