"""The README's `console` blocks are run in a copy of the examples; `pytest --rewrite-goldens` writes them anew."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MARK = "--- end of output ---"

installed = shutil.which("preflight", path=sysconfig.get_path("scripts")) is not None
needs_bash = pytest.mark.skipif(not installed or shutil.which("bash") is None, reason="no bash, or not installed")


def commands(block: str) -> list[tuple[str, str]]:
    """(command, expected output) of each `$ command` in a block."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def run(lines: list[str], folder: Path) -> list[str]:
    """What each line prints, both streams together, in one shell that remembers the exit status of the one before."""
    scripts = sysconfig.get_path("scripts")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFLIGHT_")}
    environment = kept | {"PATH": os.pathsep.join((scripts, os.environ["PATH"])), "PYTHONUTF8": "1"}
    script = "".join(f"{line}\nstatus=$?; echo '{MARK}'; (exit $status)\n" for line in lines)
    done = subprocess.run(
        ["bash", "-c", f"exec 2>&1\n{script}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return done.stdout.split(f"{MARK}\n")[:-1]


def same(expected: str, actual: str) -> bool:
    """Whether they are equal, where a line `…` stands for any lines and a `…` within a line for any characters."""
    lines = expected.splitlines(keepends=True)
    pattern = "".join("(?:.*\n)*" if line == "…\n" else re.escape(line).replace("…", "[^\n]*") for line in lines)
    return re.fullmatch(pattern, actual) is not None


@pytest.mark.parametrize(
    ("expected", "actual", "equal"),
    [
        ("a\n", "a\n", True),
        ("a\n", "b\n", False),
        ("a\n…\nz\n", "a\nb\nc\nz\n", True),
        ("a\n…\nz\n", "a\nz\n", True),
        ("a\n…\nz\n", "a\nb\n", False),
        ("a … z\n", "a b c z\n", True),
        ("a … z\n", "a\nz\n", False),
        ("1.5 (x)\n", "1.5 (x)\n", True),
        ("1.5\n", "105\n", False),
    ],
)
def test_an_ellipsis_stands_for_what_is_left_out(expected: str, actual: str, equal: bool) -> None:
    assert same(expected, actual) is equal


@needs_bash
def test_the_samples_on_the_page_are_what_it_prints(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    shutil.copytree(README.parent / "configs", tmp_path / "configs")
    page = README.read_text(encoding="utf-8")
    blocks = BLOCK.findall(page)
    assert len(blocks) >= 3
    wrong = []
    for block in blocks:
        asked = commands(block)
        answers = run([command for command, _ in asked], tmp_path)
        assert len(answers) == len(asked), answers
        written = "".join(f"$ {command}\n{answer}" for (command, _), answer in zip(asked, answers, strict=True))
        if not all(same(expected, answer) for (_, expected), answer in zip(asked, answers, strict=True)):
            wrong.append(written)
            page = page.replace(f"```console\n{block}```", f"```console\n{written}```")
    if wrong and request.config.getoption("--rewrite-goldens", default=False):
        README.write_text(page, encoding="utf-8")
        return
    assert not wrong, "what README.md shows is not what is printed (pytest --rewrite-goldens): " + "\n".join(wrong)


@needs_bash
def test_the_settings_on_the_page_are_read(tmp_path: Path) -> None:
    shutil.copytree(README.parent / "configs", tmp_path / "configs")
    found = re.search(r"^```toml\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    (tmp_path / "pyproject.toml").write_text(found[1].replace("0.7", "0.8"), encoding="utf-8")
    (answer,) = run(["preflight configs/fno_ocean.yaml"], tmp_path)
    assert "80 % rule" in answer
