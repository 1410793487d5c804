"""`--diff`, `--fix`, `--choose` and `--grow` from the command line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from random import Random

import pytest

from preflight.cli import main

CONFIGS = Path(__file__).parent.parent / "configs"
FNO = (CONFIGS / "fno_ocean.yaml").read_text(encoding="utf-8")
SMALL = ("--gpu-memory", "6")

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "fno.yaml"
    path.write_text(FNO, encoding="utf-8")
    return path


def test_a_diff_changes_nothing_and_applies(config: Path, capsys: Capture) -> None:
    assert main(["fno.yaml", *SMALL, "--diff"]) == 1
    diff = capsys.readouterr().out
    assert config.read_text(encoding="utf-8") == FNO
    assert diff.startswith("--- a/fno.yaml\n+++ b/fno.yaml\n@@ ")
    if shutil.which("git"):
        subprocess.run(["git", "apply"], input=diff, text=True, check=True)
        assert main(["fno.yaml", *SMALL]) == 0


def test_a_fix_is_the_diff(config: Path, capsys: Capture) -> None:
    assert main(["fno.yaml", *SMALL, "--diff", "--choose", "2"]) == 1
    diff = capsys.readouterr().out
    assert main(["fno.yaml", *SMALL, "--fix", "--choose", "2"]) == 0
    written = config.read_text(encoding="utf-8").splitlines()
    removed, added = ([line[1:] for line in diff.splitlines()[2:] if line.startswith(sign)] for sign in "-+")
    assert [line for line in FNO.splitlines() if line not in written] == removed
    assert [line for line in written if line not in FNO.splitlines()] == added


def test_a_fix_reports_on_what_the_file_is_then_and_is_made_once(config: Path, capsys: Capture) -> None:
    assert main(["fno.yaml", *SMALL, "--fix", "--format", "json"]) == 0
    said = capsys.readouterr()
    (result,) = json.loads(said.out)["results"]
    assert result["verdict"] == "fits"
    assert said.err.startswith("preflight: fno.yaml now has batch 256")
    once = config.read_bytes()
    assert main(["fno.yaml", *SMALL, "--fix", "-q"]) == 0
    assert "passes as it is; nothing is changed" in capsys.readouterr().err
    assert config.read_bytes() == once


def test_a_json_config_is_fixed_in_place(config: Path, capsys: Capture) -> None:
    import yaml

    config.with_suffix(".json").write_text(json.dumps(yaml.safe_load(FNO), indent=4), encoding="utf-8")
    assert main(["fno.json", *SMALL, "--fix"]) == 0
    assert main(["fno.json", *SMALL]) == 0
    changed = json.loads(config.with_suffix(".json").read_text(encoding="utf-8"))
    assert changed["data"]["train_batchsize"] < 256
    capsys.readouterr()


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_toml_config_is_fixed_in_place(config: Path, capsys: Capture, newline: str) -> None:
    import yaml

    from tests.toml_texts import toml

    written = config.with_suffix(".toml")
    for seed in range(5):  # manners of writing it
        text = toml(yaml.safe_load(FNO), Random(seed)).replace("\r\n", "\n").replace("\n", newline)
        written.write_bytes(text.encode())
        assert main(["fno.toml", *SMALL, "--fix"]) == 0
        after = written.read_bytes().decode()
        lines = list(zip(text.split(newline), after.split(newline), strict=True))
        changed = [(a, b) for a, b in lines if a != b]
        assert 1 <= len(changed) <= 2
        assert all(re.split(r"\d+", a) == re.split(r"\d+", b) for a, b in changed)
        assert main(["fno.toml", *SMALL]) == 0
        assert main(["fno.toml", *SMALL, "--fix", "-q"]) == 0
        assert written.read_bytes().decode() == after
    capsys.readouterr()


def test_crlf_stays(config: Path, capsys: Capture) -> None:
    config.write_bytes(FNO.replace("\n", "\r\n").encode())
    assert main(["fno.yaml", *SMALL, "--fix"]) == 0
    written = config.read_bytes()
    assert written.count(b"\n") == written.count(b"\r\n") == FNO.count("\n")
    capsys.readouterr()


def refused(capsys: Capture, *words: str) -> str:
    assert main(["fno.yaml", *SMALL, *words]) == 1
    message = capsys.readouterr().err
    assert message.startswith("preflight: ")
    assert message.count("\n") == 1
    return message


def test_what_is_not_edited_is_said_in_one_sentence_and_left_alone(config: Path, capsys: Capture) -> None:
    config.write_text(FNO.replace("train_batchsize: 256", "train_batchsize: ${data.eval_batchsize}"), encoding="utf-8")
    before = config.read_bytes()
    assert "data.train_batchsize takes its value from ${data.eval_batchsize}" in refused(capsys, "--fix")
    config.chmod(0o444)
    assert "read-only" in refused(capsys, "--fix", "--choose", "2")
    assert "there is no number 9" in refused(capsys, "--diff", "--choose", "9")
    assert config.read_bytes() == before


def test_what_set_overrides_is_not_written(config: Path, capsys: Capture) -> None:
    assert "was given with --set" in refused(capsys, "--fix", "--set", "data.train_batchsize=200")
    assert config.read_text(encoding="utf-8") == FNO


def test_a_link_out_of_the_tree_is_not_followed(config: Path, capsys: Capture, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "fno.yaml"
    elsewhere.write_text(FNO, encoding="utf-8")
    config.unlink()
    config.symlink_to(elsewhere)
    assert "symbolic link" in refused(capsys, "--fix")
    assert elsewhere.read_text(encoding="utf-8") == FNO


def test_one_refusal_does_not_stop_the_others(config: Path, capsys: Capture) -> None:
    other = config.with_name("other.yaml")
    other.write_text(FNO, encoding="utf-8")
    config.chmod(0o444)
    assert main(["fno.yaml", "other.yaml", *SMALL, "--fix", "-q"]) == 1
    assert config.read_text(encoding="utf-8") == FNO
    assert other.read_text(encoding="utf-8") != FNO
    capsys.readouterr()


def test_room_to_grow_is_told_and_written(config: Path, capsys: Capture) -> None:
    assert main(["fno.yaml", "--grow"]) == 0
    assert "There is room for any one of these:" in capsys.readouterr().out
    assert main(["fno.yaml", "--grow", "--fix"]) == 0
    assert config.read_text(encoding="utf-8") != FNO
    assert main(["fno.yaml"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize("words", [["--choose", "2"], ["--diff", "--fix"], ["--fix", "--choose", "0"]])
def test_flags_that_make_no_sense_are_the_command_lines_fault(words: list[str], config: Path, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([config.name, *words])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
