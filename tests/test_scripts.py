"""A launch script judged as configs are: a result for each training in it, at the script's own flags and lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from preflight import document, explain, scripts
from preflight.cli import main
from preflight.finding import ConfigError
from preflight.pipeline import inspect, inspect_all

TRAIN = "deepspeed --num_gpus 1 hydit/train_deepspeed.py --use-zero-stage 2 --deepspeed --training-parts lora --rank {rank}"
FLAGS = " \\\n  --image-size 512 \\\n  --batch-size {batch} --gradient-checkpointing\n"


def script(folder: Path, text: str, name: str = "train.sh") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def launch(rank: str | int = 8, batch: int = 2) -> str:
    return (TRAIN + FLAGS).format(rank=rank, batch=batch)


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFLIGHT_GPU", "rtx4090-24gb")


def test_a_script_is_judged_by_its_name_or_its_first_line(tmp_path: Path) -> None:
    for name, head in (("train.sh", ""), ("train.slurm", "#SBATCH --gres=gpu:1\n"), ("run", "#!/usr/bin/env bash\n")):
        result = inspect(script(tmp_path, head + launch(), name), gpu="rtx4090-24gb")
        assert (result.verdict, result.adapter) == ("fits", "hunyuandit")
    assert inspect("-", text="#!/bin/sh\n" + launch(), gpu="rtx4090-24gb").verdict == "fits"


def test_a_loops_launches_are_numbered(tmp_path: Path) -> None:
    path = script(tmp_path, f"for rank in 8 16; do\n{launch('$rank')}done\n")
    results = inspect_all(path)
    assert [result.config for result in results] == [f"{path}:2 (1 of 2)", f"{path}:2 (2 of 2)"]
    assert [result.spec.train.lora.rank for result in results if result.spec and result.spec.train.lora] == [8, 16]
    assert [scripts.placed(result.config) for result in results] == [(f"{path}:2", 0), (f"{path}:2", 1)]


def test_a_loops_offers_are_told_at_their_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = script(tmp_path, f"for rank in 8 16; do\n{launch('$rank', batch=512)}done\n")
    assert main([path, "--gpu-memory", "16", "--diff"]) == 1
    assert capsys.readouterr().err.count(f"preflight: {path} is a script, which is not edited; by hand: ") == 2


def test_several_launches_are_each_judged_and_named_by_their_line(tmp_path: Path) -> None:
    path = script(tmp_path, launch(8) + "\n" + launch(16, batch=64))
    results = inspect_all(path, gpu_memory_gib=16)
    assert [(r.config, r.verdict) for r in results] == [(f"{path}:1", "fits"), (f"{path}:5", "does-not-fit")]
    assert {f.file for f in results[1].findings if f.line is not None} == {path}
    assert inspect(f"{path}:5", gpu_memory_gib=16).verdict == "does-not-fit"
    assert [f.id for f in inspect(path).findings] == ["several-launches"]
    with pytest.raises(ConfigError, match=f"{path}:1, {path}:5"):
        document.read(path)
    with pytest.raises(ConfigError, match="those that it starts are on line 1, 5"):
        document.read(f"{path}:3")


def test_the_worst_launch_decides_and_set_is_about_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = script(tmp_path, launch("$RANK") + "\n" + launch(16))
    assert main([path, "--format", "json"]) == 1
    first, second = json.loads(capsys.readouterr().out)["results"]
    assert (first["verdict"], second["verdict"]) == ("cannot-judge", "fits")
    assert [(f["id"], f["key"], f["line"], f["column"]) for f in first["findings"]] == [
        ("unresolved-variable", "--rank", 1, TRAIN.index("--rank") + 1)
    ]
    assert main([path, "--format", "json", "--set", "--rank=4"]) == 0
    found = json.loads(capsys.readouterr().out)["results"]
    assert [result["spec"]["train"]["lora"]["rank"] for result in found] == [4, 4]


def test_what_prepares_a_training_is_left_aside_and_what_may_be_one_is_not(tmp_path: Path) -> None:
    path = script(tmp_path, "python preprocess.py --x 1\n" + launch() + "accelerate launch other.py --config a.yaml\n")
    known, other = inspect_all(path, gpu="rtx4090-24gb")
    assert [(f.id, f.line) for f in known.findings if f.id == "not-judged"] == [("not-judged", 1)]
    (finding,) = other.findings
    assert (finding.id, finding.line, other.verdict) == ("unknown-program", 5, "cannot-judge")
    assert finding.message == "no adapter knows other.py, the program that is started here."
    assert finding.fix == "preflight a.yaml judges the config that it names"


def test_a_script_without_a_training_is_one_sentence(tmp_path: Path) -> None:
    (result,) = inspect_all(script(tmp_path, "echo hello\npip install torch\n"))
    assert [f.id for f in result.findings] == ["no-launch"]


@pytest.mark.parametrize(("name", "kind"), [("train.ps1", "PowerShell"), ("train.BAT", "a batch file"), ("train.fish", "fish")])
def test_scripts_of_other_shells_are_refused_by_name(tmp_path: Path, name: str, kind: str) -> None:
    (result,) = inspect_all(script(tmp_path, "x", name))
    (finding,) = result.findings
    assert (finding.id, f"is {kind}, which is not read" in finding.message) == ("unknown-format", True)


def test_bad_files_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "binary.sh").write_bytes(b"python t.py\x00\x01")
    (tmp_path / "folder.sh").mkdir()
    for name, id_ in (
        ("binary.sh", "binary-file"),
        ("folder.sh", "not-a-file"),
        ("none.sh", "missing-file"),
        ("none.sh:3", "missing-file"),
    ):
        (result,) = inspect_all(str(tmp_path / name))
        assert [f.id for f in result.findings] == [id_]


def test_an_offer_is_shown_in_flags_and_never_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = script(tmp_path, launch(8, batch=16))
    text = Path(path).read_text(encoding="utf-8")
    assert main([path, "--gpu-memory", "13"]) == 1
    assert "     --batch-size " in capsys.readouterr().out
    for flag in ("--diff", "--fix"):
        assert main([path, "--gpu-memory", "13", flag]) == 1
        said = capsys.readouterr().err
        assert said.startswith(f"preflight: {path} is a script, which is not edited; by hand: set --batch-size on line 3 to ")
        assert len(said.splitlines()) == 1
    assert Path(path).read_text(encoding="utf-8") == text


def test_an_offer_that_is_set_fits(tmp_path: Path) -> None:
    path = script(tmp_path, launch(8, batch=16))
    result = inspect(path, gpu_memory_gib=13)
    assert result.reductions
    for offer in result.reductions:
        after = inspect(path, gpu_memory_gib=13, overrides=[f"{key}={json.dumps(value)}" for key, value in offer.keys.items()])
        assert (after.verdict in ("fits", "tight"), after.memory.peak_bytes) == (True, offer.peak_bytes)


def test_windows_line_ends_are_read_and_warned_of(tmp_path: Path) -> None:
    result = inspect(script(tmp_path, launch().replace("\n", "\r\n")), gpu="rtx4090-24gb")
    assert result.verdict == "fits"
    assert [(f.id, f.severity) for f in result.findings if f.severity != "note"] == [("windows-lines", "warning")]


def test_a_comment_silences_what_is_said_of_a_script(tmp_path: Path) -> None:
    text = "# preflight: ignore[windows-lines]\r\n" + launch()
    result = inspect(script(tmp_path, text), gpu="rtx4090-24gb")
    assert (result.silenced, [f.id for f in result.findings if f.severity != "note"]) == (1, [])


@pytest.mark.parametrize(
    "id_",
    ["no-launch", "several-launches", "unknown-program", "not-judged", "unresolved-variable", "unresolved-arguments",
     "flags-cut-off",
     "script-not-read", "invalid-shell", "windows-lines", "file-not-read"],
)  # fmt: skip
def test_each_finding_is_explained(id_: str) -> None:
    assert id_ in explain.explanation(id_)
