"""The command line as programs and people call it: words in, text and an exit status out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import preflight
from preflight.finding import ConfigError
from preflight.settings import Settings, find, machine_gpu

CONFIGS = Path(__file__).parent.parent / "configs"

# A small run: 1.3 billion parameters, one frame of 256 x 256.
SMALL = """\
preflight: 1
model: {name: wan2.1-t2v-1.3b}
train: {method: lora, lora: {rank: 4}, checkpointing: true}
data: {height: 256, width: 256, frames: 1}
"""
NAMED = SMALL + "hardware: {gpu: a100-80gb}\n"
LARGE = SMALL.replace("1.3b", "14b").replace("256", "1024") + "hardware: {gpu: t4-16gb}\n"


def run(
    *words: str | Path, cwd: Path | None = None, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`preflight WORDS` in a process of its own, with no setting from outside."""
    done = subprocess.run(
        [sys.executable, "-m", "preflight", *map(str, words)],
        cwd=cwd,
        input=stdin,
        env=environment(env),
        capture_output=True,
        check=False,
        timeout=120,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFLIGHT_") and name != "NO_COLOR"}
    return (
        kept | {"PYTHONUTF8": "1", "COLUMNS": "100", "PYTHONPATH": str(Path(preflight.__file__).parent.parent)} | dict(more or {})
    )


def results(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = json.loads(done.stdout)["results"]
    return answer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository with a config that names no GPU, one that fits and one that does not."""
    (tmp_path / ".git").mkdir()
    for name, text in {"small": SMALL, "named": NAMED, "large": LARGE}.items():
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    return tmp_path


# ---- the gate


def test_what_fits_exits_with_0(folder: Path) -> None:
    done = run("named.yaml", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "named.yaml fits: needs " in done.stdout


def test_what_does_not_fit_exits_with_1(folder: Path) -> None:
    done = run("large.yaml", cwd=folder)
    assert (done.returncode, done.stderr) == (1, "")
    assert "large.yaml does not fit: needs " in done.stdout


def test_the_worst_config_decides_and_none_hides_the_others(folder: Path) -> None:
    (folder / "broken.yaml").write_text("a: [", encoding="utf-8")
    done = run("missing.yaml", "broken.yaml", "named.yaml", "large.yaml", "--format", "json", cwd=folder)
    assert done.returncode == 1
    assert [(r["config"], r["verdict"]) for r in results(done)] == [
        ("missing.yaml", "cannot-judge"),
        ("broken.yaml", "cannot-judge"),
        ("named.yaml", "fits"),
        ("large.yaml", "does-not-fit"),
    ]


def test_the_word_check_is_the_default_command(folder: Path) -> None:
    assert run("check", "named.yaml", cwd=folder).stdout == run("named.yaml", cwd=folder).stdout


def test_a_config_named_like_a_command_is_given_by_path(folder: Path) -> None:
    shutil.copy(folder / "named.yaml", folder / "rule")
    assert "rule fits: needs " in run("./rule", cwd=folder).stdout


def test_other_files_are_passed_over_where_only_training_is_asked_for(folder: Path) -> None:
    (folder / "ds.json").write_text('{"zero_optimization": {"stage": 2}}', encoding="utf-8")
    asked = run("ds.json", cwd=folder)
    assert (asked.returncode, "[not-a-training-config]" in asked.stdout) == (1, True)
    passed = run("ds.json", "--training-only", cwd=folder)
    said = "preflight: ds.json is no training config, so it is passed over\n"
    assert (passed.returncode, passed.stdout, passed.stderr) == (0, "", said)
    assert run("ds.json", "missing.yaml", "--training-only", cwd=folder).returncode == 1


def test_quiet_prints_nothing_when_all_is_well(folder: Path) -> None:
    assert run("-q", "named.yaml", cwd=folder).stdout == ""
    loud = run("-q", "named.yaml", "large.yaml", cwd=folder)
    assert "named.yaml fits" not in loud.stdout
    assert "large.yaml does not fit" in loud.stdout


def test_flags_and_configs_come_in_any_order(folder: Path) -> None:
    done = run("named.yaml", "--format", "json", "large.yaml", "--threshold", "0.5", cwd=folder)
    assert [r["config"] for r in results(done)] == ["named.yaml", "large.yaml"]


def test_set_changes_a_key(folder: Path) -> None:
    done = run("named.yaml", "--set", "train.batch=2", "--set", "data.frames=5", "--format", "json", cwd=folder)
    spec = results(done)[0]["spec"]
    assert (spec["train"]["batch"], spec["data"]["frames"]) == (2, 5)


def test_the_threshold_is_the_share_of_the_gpu(folder: Path) -> None:
    memory = results(run("named.yaml", "--threshold", "0.25", "--format", "json", cwd=folder))[0]["memory"]
    assert memory["activation_limit_bytes"] == memory["capacity_bytes"] // 4


# ---- standard input


def test_a_dash_reads_standard_input_once() -> None:
    done = run("-", "-", "--format", "json", stdin=NAMED.encode())
    assert [(r["config"], r["verdict"]) for r in results(done)] == [("-", "fits"), ("-", "fits")]


def test_standard_input_is_left_alone_unless_asked_for(folder: Path) -> None:
    assert run("named.yaml", cwd=folder, stdin=b"\xff").returncode == 0


@pytest.mark.parametrize("stdin", [b"", b"\xff\xfe\xfa", b"[1, 2]", b"a: [", b"\x00\x01"])
def test_bad_standard_input_is_a_finding(stdin: bytes) -> None:
    done = run("-", stdin=stdin)
    assert (done.returncode, done.stderr) == (1, "")
    assert "- cannot be judged\n" in done.stdout
    assert "internal error" not in done.stdout


# ---- the wrong command line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "CONFIG"),
        (["named.yaml", "--gpus", "v100-32gb"], "did you mean --gpu?"),
        (["named.yaml", "--gpu", "v100-33gb"], "did you mean v100-32gb?"),
        (["named.yaml", "--gpu", ""], "--gpu"),
        (["named.yaml", "--adapter", "wan-lore"], "wan-lora"),
        (["named.yaml", "--gpu-memory", "0"], "--gpu-memory"),
        (["named.yaml", "--gpu-memory", "nan"], "--gpu-memory"),
        (["named.yaml", "--gpu-memory", "-1"], "--gpu-memory"),
        (["named.yaml", "--gpu-memory", "inf"], "--gpu-memory"),
        (["named.yaml", "--threshold", "0"], "--threshold"),
        (["named.yaml", "--threshold", "1.01"], "--threshold"),
        (["named.yaml", "--threshold", "nan"], "--threshold"),
        (["named.yaml", "--threshold", "70%"], "--threshold"),
        (["named.yaml", "--format", "xml"], "--format"),
        (["named.yaml", "--set", "frames"], "--set"),
        (["named.yaml", "--set", "=1"], "--set"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_2(folder: Path, words: list[str], said: str) -> None:
    done = run(*words, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_and_version_are_printed() -> None:
    assert run("--version").stdout == f"preflight {preflight.__version__}\n"
    assert "CONFIG" in run("--help").stdout
    assert "--hidden-dim" in run("rule", "--help").stdout


# ---- where the GPU comes from


def gpu_memory(folder: Path, *words: str, **env: str) -> float:
    done = run(*words, "--format", "json", cwd=folder, env=env)
    memory = results(done)[0]["memory"]["capacity_bytes"]
    assert memory is not None, done.stdout
    return float(memory / 2**30)


def fake_nvidia_smi(folder: Path, *rows: str) -> str:
    """A PATH on which `nvidia-smi` answers with `rows`, before everything else."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "nvidia-smi"
    lines = "".join(f"echo '{row}'\n" for row in rows)
    program.write_text(f"#!/bin/sh\n{lines}", encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return os.pathsep.join((str(folder / "bin"), os.environ["PATH"]))


def test_the_flag_wins_over_the_config_and_the_config_over_the_environment(folder: Path) -> None:
    assert 79 < gpu_memory(folder, "named.yaml", PREFLIGHT_GPU="h200-141gb") < 80
    assert gpu_memory(folder, "named.yaml", "--gpu", "h200-141gb") > 130
    assert gpu_memory(folder, "named.yaml", "--gpu-memory", "100") == 100


def test_the_environment_wins_over_the_settings_and_they_over_the_machine(folder: Path) -> None:
    path = fake_nvidia_smi(folder, "24564, NVIDIA GeForce RTX 4090", "15360, Tesla T4")
    assert gpu_memory(folder, "small.yaml", PATH=path) < 16  # the smaller of the two
    (folder / ".preflight.yaml").write_text("gpu: v100-32gb\n", encoding="utf-8")
    assert 31 < gpu_memory(folder, "small.yaml", PATH=path) < 32
    assert gpu_memory(folder, "small.yaml", PATH=path, PREFLIGHT_GPU="h200-141gb") > 130


def test_a_gpu_that_nobody_named_is_an_error_that_names_the_flag(folder: Path) -> None:
    if machine_gpu() is not None:
        pytest.skip("there is a GPU in this machine")
    done = run("small.yaml", cwd=folder)
    assert done.returncode == 1
    assert "--gpu" in done.stdout


def test_an_unknown_gpu_in_the_environment_says_who_named_it(folder: Path) -> None:
    done = run("small.yaml", cwd=folder, env={"PREFLIGHT_GPU": "v100-33gb"})
    assert done.returncode == 1
    assert "PREFLIGHT_GPU" in done.stdout
    assert run("named.yaml", cwd=folder, env={"PREFLIGHT_GPU": "v100-33gb"}).returncode == 0


# ---- settings


def test_settings_are_searched_upward_to_the_root_of_the_repository(folder: Path) -> None:
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    assert find(below) == Settings()
    (folder.parent / ".preflight.yaml").write_text("gpu: t4-16gb\n", encoding="utf-8")
    assert find(below) == Settings()
    (folder / "pyproject.toml").write_text('[tool.preflight]\ngpu = "v100-32gb"\nthreshold = 0.6\n', encoding="utf-8")
    assert find(below) == Settings(gpu="v100-32gb", threshold=0.6, source=str(folder / "pyproject.toml"))
    (folder / "a" / "pyproject.toml").write_text('[tool.other]\nname = "preflight"\n', encoding="utf-8")
    assert find(below).gpu == "v100-32gb"
    (folder / "a" / ".preflight.yaml").write_text("strict: true\n", encoding="utf-8")
    assert find(below) == Settings(strict=True, source=str(folder / "a" / ".preflight.yaml"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (".preflight.yaml", "gpus: v100-32gb", "did you mean gpu?"),
        (".preflight.yaml", "threshold: 70", "threshold"),
        (".preflight.yaml", "threshold: true", "threshold"),
        (".preflight.yaml", "threshold: .nan", "threshold"),
        (".preflight.yaml", "strict: 1", "strict"),
        (".preflight.yaml", "gpu: 3090", "gpu"),
        (".preflight.yaml", "- 1", "keys and values"),
        (".preflight.yaml", "a: [", "not YAML"),
        (".preflight.yaml", "\udcff", "cannot be read"),
        ("pyproject.toml", "[tool.preflight]\nspeed = 1", "speed"),
        ("pyproject.toml", "[tool.preflight", "not TOML"),
        ("pyproject.toml", "[tool]\npreflight = 1", "keys and values"),
    ],
)
def test_wrong_settings_stop_the_launch_with_one_sentence(folder: Path, name: str, text: str, said: str) -> None:
    (folder / name).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
        find(folder)
    done = run("named.yaml", cwd=folder)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert name in done.stderr


def test_settings_are_obeyed(folder: Path) -> None:
    (folder / ".preflight.yaml").write_text("threshold: 0.5\n", encoding="utf-8")
    memory = results(run("named.yaml", "--format", "json", cwd=folder))[0]["memory"]
    assert memory["activation_limit_bytes"] == memory["capacity_bytes"] // 2
    assert gpu_memory(folder, "named.yaml", "--threshold", "0.7") > 0


# ---- what may go wrong around it


def test_a_broken_installation_is_one_sentence_for_each_config(folder: Path) -> None:
    broken = folder / "broken"
    broken.mkdir()
    (broken / "jsonschema.py").write_text("raise RuntimeError('half installed')\n", encoding="utf-8")
    python_path = os.pathsep.join((str(broken), environment()["PYTHONPATH"]))
    done = run("named.yaml", "large.yaml", cwd=folder, env={"PYTHONPATH": python_path})
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.count("internal error: RuntimeError: half installed; please report [internal-error]") == 2
    debugged = run("named.yaml", cwd=folder, env={"PYTHONPATH": python_path, "PREFLIGHT_DEBUG": "1"})
    assert "Traceback" in debugged.stderr


def test_a_reader_who_leaves_early_changes_neither_the_status_nor_the_peace(folder: Path) -> None:
    words: Sequence[str] = [sys.executable, "-m", "preflight", *["named.yaml"] * 30]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(words, cwd=folder, env=environment(), stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_interrupt_is_quiet_and_130() -> None:
    words = [sys.executable, "-m", "preflight", "-"]
    with subprocess.Popen(
        words, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        time.sleep(1)  # it waits for standard input
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_an_output_without_the_characters_gets_others(folder: Path) -> None:
    plain = run("named.yaml", cwd=folder, env={"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"})
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout.isascii()
    assert "#" in plain.stdout


def test_a_pipe_gets_no_colour(folder: Path) -> None:
    assert "\x1b" not in run("named.yaml", "large.yaml", cwd=folder).stdout


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal is made with pty")
@pytest.mark.parametrize(
    ("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)]
)
def test_a_terminal_gets_colour_unless_it_asks_for_none(folder: Path, env: dict[str, str], coloured: bool) -> None:
    import pty

    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "preflight", "named.yaml"]
    with subprocess.Popen(words, cwd=folder, env=environment({"TERM": "xterm"} | env), stdout=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux's way to say that the other side is closed
                break
            if not piece:
                break
            shown += piece
    os.close(ours)
    assert process.returncode == 0
    assert (b"\x1b[" in shown) is coloured
    assert "named.yaml" in shown.decode()


def test_a_piped_check_never_imports_what_only_a_terminal_or_a_trace_needs(folder: Path) -> None:
    code = (
        "import sys; from preflight.cli import main; status = main(['named.yaml', '-q']);"
        "print(status, sorted({'rich', 'torch', 'diffusers', 'peft'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "0 []\n"


# ---- the examples


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_judged_and_told_in_under_40_lines(config: Path) -> None:
    done = run(config, env={"PREFLIGHT_GPU": "a100-80gb"})
    assert done.stderr == ""
    assert "cannot be judged" not in done.stdout
    assert len(done.stdout.splitlines()) < 40
