"""The catalog's files are true to their schemas and to one another, and every spelling of a name finds its fact."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from preflight import catalog
from preflight.finding import ConfigError

ROOT = Path(__file__).parent.parent
TRACES = ROOT.parent / "shared" / "truth" / "traces.jsonl"
FILES = sorted((ROOT / "preflight" / "catalog").glob("*/*.yaml"))
LOOKUPS: dict[str, Callable[[str], Any]] = {
    "gpus": catalog.gpu,
    "networks": catalog.network,
    "components": catalog.component,
}
NAMES = [
    (path.parent.name, path.stem, name) for path in FILES for name in (path.stem, *yaml.safe_load(path.read_text())["aliases"])
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_file_passes_its_schema_and_is_named_after_its_id(path: Path) -> None:
    schema = json.loads((ROOT / "schemas" / f"{path.parent.name[:-1]}.schema.json").read_text())
    data = yaml.safe_load(path.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(data)
    assert data["id"] == path.stem


def test_every_file_becomes_a_fact() -> None:
    ids = [gpu.id for gpu in catalog.gpus()]
    ids += [network.id for network in catalog.networks()]
    ids += [component.id for component in catalog.components()]
    assert sorted(ids) == sorted(path.stem for path in FILES)


@pytest.mark.parametrize("folder", LOOKUPS)
def test_no_two_facts_share_a_name(folder: str) -> None:
    owners: dict[str, set[str]] = {}
    for _, id_, name in (entry for entry in NAMES if entry[0] == folder):
        owners.setdefault(catalog.fold(name), set()).add(id_)
    assert {name: ids for name, ids in owners.items() if len(ids) > 1} == {}


def test_references_between_files_resolve() -> None:
    kinds = {component.id: component.kind for component in catalog.components()}
    for network in catalog.networks():
        assert network.vae is None or kinds[network.vae] == "vae"
        assert all(kinds[encoder.component] == "text-encoder" for encoder in network.text_encoders)
        if network.image_encoder is not None:
            assert kinds[network.image_encoder.component] == "image-encoder"


def test_a_card_has_less_memory_than_it_is_sold_with() -> None:
    for gpu in catalog.gpus():
        sold = int(gpu.id.rsplit("-", 1)[1].removesuffix("gb"))
        assert 0.9 * sold * 2**30 < gpu.memory_bytes < sold * 2**30, gpu.id


def test_flash_attention_and_bfloat16_follow_the_compute_capability() -> None:
    for gpu in catalog.gpus():
        capability = float(gpu.compute_capability)
        assert gpu.flash_attention == gpu.bf16 == (capability >= 8.0), gpu.id
        assert gpu.fp8 == (capability >= 8.9), gpu.id


def test_sizes_that_authors_state_are_sizes_the_network_takes() -> None:
    for network in catalog.networks():
        for height, width in network.trained_sizes:
            assert network.pixel_multiple is not None
            assert height % network.pixel_multiple == 0, network.id
            assert width % network.pixel_multiple == 0, network.id
        if network.max_frames is not None:
            assert network.frame_step is not None
            assert network.max_frames % network.frame_step == network.frame_offset, network.id


@given(
    entry=st.sampled_from(NAMES),
    separator=st.sampled_from(["", " ", "-", "_", "--"]),
    change=st.sampled_from([str.lower, str.upper, str.title]),
)
def test_case_and_separators_do_not_matter(entry: tuple[str, str, str], separator: str, change: Callable[[str], str]) -> None:
    folder, id_, name = entry
    spelled = change(name.replace(" ", "-").replace("_", "-").replace("-", separator))
    assert LOOKUPS[folder](spelled).id == id_


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        ("V100 32GB", "v100-32gb"),
        ("v100_32g", "v100-32gb"),
        ("V100 32 GiB", "v100-32gb"),
        ("Tesla V100-SXM2-32GB", "v100-32gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb"),
        ("NVIDIA H100 80GB HBM3", "h100-80gb"),
        ("H100", "h100-80gb"),
        ("H100 PCIe", "h100-pcie-80gb"),
        ("NVIDIA H200", "h200-141gb"),
        ("RTX 4090", "rtx4090-24gb"),
        ("rtx4090-24gb", "rtx4090-24gb"),
        ("4090", "rtx4090-24gb"),
        ("GeForce RTX 3090", "rtx3090-24gb"),
        ("NVIDIA RTX A6000", "a6000-48gb"),
        ("Tesla T4", "t4-16gb"),
    ],
)
def test_gpu_names_as_people_and_drivers_write_them(name: str, id_: str) -> None:
    assert catalog.gpu(name).id == id_


@pytest.mark.parametrize(
    ("lookup", "name", "id_", "message"),
    [
        (
            catalog.gpu,
            "V100",
            "unknown-gpu",
            "GPU 'V100' is sold with several memory sizes; say which: v100-16gb, v100-32gb.",
        ),
        (
            catalog.gpu,
            "NVIDIA A100",
            "unknown-gpu",
            "GPU 'NVIDIA A100' is sold with several memory sizes; say which: a100-40gb, a100-80gb.",
        ),
        (catalog.gpu, "h1000-80gb", "unknown-gpu", "GPU 'h1000-80gb' is not in the catalog; did you mean h100-80gb?"),
        (catalog.gpu, "abacus", "unknown-gpu", "GPU 'abacus' is not in the catalog."),
        (
            catalog.network,
            "Wan2.2-T2V-A15B",
            "unknown-model",
            "Model 'Wan2.2-T2V-A15B' is not in the catalog; did you mean wan2.2-t2v-a14b?",
        ),
        (
            catalog.component,
            "t5-xxxl",
            "unknown-component",
            "Component 't5-xxxl' is not in the catalog; did you mean t5-xxl?",
        ),
    ],
)
def test_a_name_that_finds_nothing_is_one_sentence(lookup: Callable[[str], object], name: str, id_: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        lookup(name)
    (finding,) = caught.value.findings
    assert (finding.id, finding.severity, finding.message) == (id_, "error", message)


def test_an_unknown_name_says_what_there_is() -> None:
    with pytest.raises(ConfigError) as caught:
        catalog.gpu("abacus")
    fix = caught.value.findings[0].fix
    assert fix is not None
    assert all(gpu.id in fix for gpu in catalog.gpus())


@pytest.mark.parametrize("folder", LOOKUPS)
@given(name=st.text(max_size=30))
def test_any_text_is_found_or_refused_in_one_line(folder: str, name: str) -> None:
    with suppress(ConfigError):
        assert LOOKUPS[folder](name).id in {id_ for kind, id_, _ in NAMES if kind == folder}
        return
    with pytest.raises(ConfigError) as caught:
        LOOKUPS[folder](name)
    assert "\n" not in caught.value.findings[0].message


def test_facts_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        catalog.network("wan2.1-t2v-1.3b").dims["num_layers"] = 1  # type: ignore[index]  # that is what is tested


def test_parameters_are_those_of_the_traced_networks() -> None:
    if not TRACES.exists():
        pytest.skip("the traces of real networks are not beside this checkout")
    counted = {network.id: network.parameters for network in catalog.networks() if network.parameters}
    compared = set()
    for line in TRACES.read_text().splitlines():
        trace = json.loads(line)
        if trace.get("task") != "full":
            continue
        id_ = trace["model"]
        if id_.startswith("hunyuandit-"):
            id_ = f"hunyuandit-v{trace.get('version', '1.2')}-{id_.removeprefix('hunyuandit-')}"
        if id_ in counted:
            assert counted[id_] == trace["parameters"], id_
            compared.add(id_)
    assert {"wan2.1-t2v-1.3b", "wan2.2-t2v-a14b", "hunyuandit-v1.1-g2", "hunyuandit-v1.2-xl2"} <= compared
