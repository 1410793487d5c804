"""The three who call it: a launch script's gate, pre-commit with the hook that is shipped, and a terminal."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = Path(sysconfig.get_path("scripts"))
PREFLIGHT = shutil.which("preflight", path=str(SCRIPTS))
SHIPPED = ("preflight", "schemas", "pyproject.toml", "README.md", "LICENSE", ".pre-commit-hooks.yaml")

FITTING = """\
preflight: 1
model: {name: wan2.1-t2v-1.3b}
train: {method: lora, lora: {rank: 4}, checkpointing: true}
data: {height: 256, width: 256, frames: 1}
hardware: {gpu: a100-80gb}
"""
TOO_LARGE = FITTING.replace("a100-80gb", "t4-16gb").replace("1.3b", "14b").replace("256", "1024")

needs_script = pytest.mark.skipif(PREFLIGHT is None, reason="the package is not installed, so there is no `preflight`")
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")
needs_pre_commit = pytest.mark.skipif(shutil.which("pre-commit", path=str(SCRIPTS)) is None, reason="no pre-commit here")


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFLIGHT_", "GIT_", "PRE_COMMIT"))}
    return kept | {"PATH": os.pathsep.join((str(SCRIPTS), os.environ["PATH"])), "PYTHONUTF8": "1"} | more


def call(*words: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """The words as a process, both streams as one text."""
    return subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
        timeout=300,
    )


# ---- the gate of a launch script


@needs_script
@needs_bash
@pytest.mark.parametrize(
    ("config", "last", "status"), [(FITTING, "launched", 0), (TOO_LARGE, "stopped", 1), ("model: [", "stopped", 1)]
)
def test_a_bash_gate_launches_what_fits_and_nothing_else(tmp_path: Path, config: str, last: str, status: int) -> None:
    (tmp_path / "config.yaml").write_text(config, encoding="utf-8")
    script = "if preflight config.yaml; then echo launched; else s=$?; echo stopped; exit $s; fi"
    done = call("bash", "-euo", "pipefail", "-c", script, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == last, done.stdout
    assert done.returncode == status


@needs_script
@needs_bash
@pytest.mark.parametrize(("config", "launched"), [("train_v100", False), ("fno_ocean", True)])
def test_the_readmes_gate_stands_before_torchrun(tmp_path: Path, config: str, launched: bool) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^```bash\n(if preflight .*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert found is not None
    (tmp_path / "torchrun").write_text('#!/bin/sh\necho "torchrun $*"\n', encoding="utf-8")
    (tmp_path / "torchrun").chmod(0o755)
    script = 'PATH="$PWD:$PATH"\n' + found[1].replace("train_v100", config)
    done = call("bash", "-c", script, cwd=tmp_path, PREFLIGHT_GPU="a100-80gb")
    assert ("\ntorchrun --nproc_per_node 2 train.py" in done.stdout) is launched, done.stdout


# ---- pre-commit


@pytest.fixture(scope="module")
def hook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository as pre-commit would clone it: the package with its `.pre-commit-hooks.yaml`, committed."""
    folder = tmp_path_factory.mktemp("hook")
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    commit(folder)
    return folder


def commit(folder: Path) -> str:
    """Everything in `folder` committed to its repository, which is made; the commit's name."""
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for words in (("init", "-q"), ("add", "-A"), (*author, "commit", "-q", "-m", "all", "--no-verify")):
        done = call("git", *words, cwd=folder)
        assert done.returncode == 0, done.stdout
    return call("git", "rev-parse", "HEAD", cwd=folder).stdout.strip()


@needs_git
@needs_pre_commit
def test_pre_commit_judges_the_changed_configs_with_the_shipped_hook(
    tmp_path: Path, hook: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    revision = call("git", "rev-parse", "HEAD", cwd=hook).stdout.strip()
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"^```yaml\n(repos:\n.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert found is not None
    config = re.sub(r"rev: .*", f"rev: {revision}", re.sub(r"repo: .*", f"repo: {hook}", found[1]))
    (tmp_path / ".pre-commit-config.yaml").write_text(config, encoding="utf-8")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "committed.yaml").write_text(TOO_LARGE, encoding="utf-8")
    commit(tmp_path)
    home = str(tmp_path_factory.mktemp("pre-commit"))

    def judge(name: str, text: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / name).write_text(text, encoding="utf-8")
        call("git", "add", name, cwd=tmp_path)
        return call("pre-commit", "run", "--color", "never", cwd=tmp_path, PRE_COMMIT_HOME=home)

    ignored = judge("other.yaml", TOO_LARGE)
    if "Could not find a version" in ignored.stdout or "connection" in ignored.stdout.lower():
        pytest.skip("pre-commit cannot build the hook's environment: no package index is reachable")
    assert re.search(r"^preflight\.+.*Skipped$", ignored.stdout, re.MULTILINE), ignored.stdout
    fits = judge("configs/fits.yaml", FITTING)
    assert (fits.returncode, "Passed" in fits.stdout) == (0, True), fits.stdout
    other = judge("configs/ds.json", '{"zero_optimization": {"stage": 2}}')
    assert (other.returncode, "Passed" in other.stdout) == (0, True), other.stdout
    large = judge("configs/large.yaml", TOO_LARGE)
    assert (large.returncode, "configs/large.yaml does not fit" in large.stdout) == (1, True), large.stdout
    assert "committed.yaml" not in large.stdout


# ---- a terminal


@needs_script
def test_a_plain_call_from_a_terminal(tmp_path: Path) -> None:
    assert PREFLIGHT is not None
    (tmp_path / "config.yaml").write_text(FITTING, encoding="utf-8")
    done = call(PREFLIGHT, "config.yaml", cwd=tmp_path)
    assert (done.returncode, "config.yaml fits: needs " in done.stdout) == (0, True), done.stdout
