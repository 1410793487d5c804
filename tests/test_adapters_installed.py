"""Adapters of other packages: the example in tests/example_adapter, installed beside this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import preflight

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = Path(__file__).parent / "example_adapter"
CONFIG = "trainer: example\nnet: wan2.1-t2v-1.3b\nrank: 8\nvideo: {frames: 33}\nwarp: 9\n"


def install(folder: Path, points: str) -> None:
    """What an installer leaves of a package: its metadata, which names the entry points."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / f"example_adapter-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    (info / "entry_points.txt").write_text(points, encoding="utf-8")


def run(folder: Path, *words: str, text: str = CONFIG) -> subprocess.CompletedProcess[str]:
    (folder / "run.yaml").write_text(text, encoding="utf-8")
    found = os.pathsep.join(map(str, (folder, PACKAGE, Path(preflight.__file__).parents[1])))
    return subprocess.run(
        [sys.executable, "-m", "preflight", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": found},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (group, points), *_ = project["entry-points"].items()
    install(tmp_path, "\n".join((f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))) + "\n")
    return tmp_path


def test_its_configs_are_judged_in_its_own_words(folder: Path) -> None:
    done = run(folder, "run.yaml", "--gpu", "rtx4090-24gb", "-v")
    assert (done.returncode, done.stderr) == (0, "")
    assert "run.yaml:5:1: warning: warp is not read by the example trainer. [unknown-key]" in done.stdout
    assert "example-trainer" in done.stdout
    assert "33" in done.stdout


def test_an_offer_is_written_in_its_own_words(folder: Path) -> None:
    large = CONFIG.replace("33", "81").replace("1.3b", "14b").replace("}", ", height: 720, width: 1280}")
    done = run(folder, "run.yaml", "--gpu", "a100-40gb", "--diff", text=large)
    assert "-video: {frames: 81, height: 720, width: 1280}" in done.stdout


def test_it_is_listed_and_can_be_named(folder: Path) -> None:
    listed = run(folder, "list", "adapters", "-v")
    assert (
        "example-trainer\n  reads       An imaginary trainer of LoRA on Wan: flat YAML with `trainer: example`.\n" in listed.stdout
    )
    assert "  video.frames → data.frames: whole number; without it 81 (example_trainer/config.py: Config)\n" in listed.stdout
    named = run(folder, "run.yaml", "--adapter", "example-trainer", "--gpu", "rtx4090-24gb", text=CONFIG.split("\n", 1)[1])
    assert named.returncode == 0
    slip = run(folder, "run.yaml", "--adapter", "exampel-trainer", "--gpu", "rtx4090-24gb")
    assert "did you mean example-trainer?" in slip.stdout + slip.stderr


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ("gone = no_such_module:ADAPTER", "cannot be loaded (ModuleNotFoundError: No module named 'no_such_module')"),
        ("gone = example_trainer:NOTHING", "cannot be loaded (AttributeError: "),
        ("gone = example_trainer:TABLE", "is of the type Table; expected a preflight.adapters.Adapter"),
        ("gone = example_trainer:ADAPTER", "calls itself 'example-trainer'; expected the same name"),
    ],
)
def test_one_that_does_not_load_is_named_and_leaves_ours_alone(tmp_path: Path, points: str, words: str) -> None:
    install(tmp_path, f"[preflight.adapters]\n{points}\n")
    done = run(tmp_path, "run.yaml", "--gpu", "a100-80gb", text="foo: 1\n")
    assert done.returncode == 1
    assert f"the adapter gone of example-adapter {words}" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    native = (
        "preflight: 1\nmodel: {name: wan2.1-t2v-1.3b}\ndata: {height: 480, width: 832, frames: 17}\n"
        "train: {method: lora, lora: {rank: 8}, checkpointing: true}\n"
    )
    assert run(tmp_path, "run.yaml", "--gpu", "a100-80gb", text=native).returncode == 0


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("compute_environment: LOCAL_MACHINE\ndistributed_type: FSDP\nnum_processes: 8\n", "accelerate's config"),
        ("bf16: {enabled: true}\nzero_optimization: {stage: 2}\n", "DeepSpeed's config"),
        ("_class_name: WanTransformer3DModel\n_diffusers_version: 0.33.0\n", "a network in diffusers"),
    ],
)
def test_a_file_that_stands_beside_a_config_is_named(tmp_path: Path, text: str, what: str) -> None:
    done = run(tmp_path, "run.yaml", "--gpu", "a100-80gb", text=text)
    assert done.returncode == 1
    assert what in done.stdout
    assert "[not-a-training-config]" in done.stdout
