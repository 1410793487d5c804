"""Findings that are known and meant: silenced where they stand, for a whole file, or in the project's settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preflight.finding import ConfigError
from preflight.pipeline import inspect
from preflight.report import Report, Result
from preflight.reporters.text import render
from preflight.settings import find
from preflight.silence import WHOLE_FILE, comments

CONFIG = """\
preflight: 1
model: {name: wan2.1-t2v-1.3b}
train: {method: lora, lora: {rank: 16}, checkpointing: true}
data: {height: 512, width: 512, frames: 5}
precision:
  weights: bf16
  autocast: bf16
hardware: {gpu: v100-32gb}
"""
ID = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=12)


def result(tmp_path: Path, text: str, ignore: frozenset[str] = frozenset()) -> Result:
    config = tmp_path / "config.yaml"
    config.write_text(text, encoding="utf-8")
    return inspect(str(config), ignore=ignore)


def said(found: Result) -> set[str]:
    return {finding.id for finding in found.findings}


def test_a_comment_silences_its_line(tmp_path: Path) -> None:
    loud = result(tmp_path, CONFIG)
    assert {"bfloat16", "trained-size"} <= said(loud)
    text = CONFIG.replace("autocast: bf16", "autocast: bf16  # preflight: ignore[bfloat16] until the new cluster")
    quiet = result(tmp_path, text)
    assert said(quiet) == said(loud) - {"bfloat16"}
    assert (loud.silenced, quiet.silenced) == (0, 1)
    assert render(Report(results=(quiet,))).endswith("\n1 finding silenced\n")


def test_a_comment_elsewhere_does_not(tmp_path: Path) -> None:
    text = CONFIG.replace("weights: bf16", "weights: bf16  # preflight: ignore[bfloat16]")
    assert "bfloat16" in said(result(tmp_path, text))


def test_a_comment_alone_on_its_line_is_for_the_file(tmp_path: Path) -> None:
    quiet = result(tmp_path, "# preflight: ignore[bfloat16, trained-size, lora]\n" + CONFIG)
    assert not {"bfloat16", "trained-size", "lora"} & said(quiet)
    assert quiet.silenced == 3


def test_a_comment_that_silences_nothing_there_is_says_so(tmp_path: Path) -> None:
    (finding,) = (f for f in result(tmp_path, "# preflight: ignore[bfloat]\n" + CONFIG).findings if f.id == "unknown-ignore")
    assert finding.message.endswith("ignores 'bfloat', which is the id of no finding; did you mean bfloat16?")


def test_what_may_be_why_a_config_fails_is_not_silenced(tmp_path: Path) -> None:
    text = CONFIG.replace("512, width: 512, frames: 5", "720, width: 1280, frames: 81")
    found = result(tmp_path, "# preflight: ignore[memory, activations, bfloat16]\n" + text)
    assert found.verdict == "does-not-fit"
    assert {"memory", "activations"} <= said(found)
    assert not found.passes()


def test_an_error_that_is_silenced_stops_nothing(tmp_path: Path) -> None:
    text = CONFIG + "schedule: {samples: 1, epochs: 1}\n"
    text = text.replace("checkpointing: true", "checkpointing: true, accumulation: 2")
    assert not result(tmp_path, text).passes()
    assert result(tmp_path, text.replace("epochs: 1}", "epochs: 1}  # preflight: ignore[schedule]")).passes()


def test_settings_silence_by_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = 'ignore: [lora]\npaths:\n  "configs/old/*": {ignore: [bfloat16]}\n'
    (tmp_path / ".preflight.yaml").write_text(settings, encoding="utf-8")
    found = find(tmp_path)
    assert found.ignored("configs/old/one.yaml") == {"lora", "bfloat16"}
    assert found.ignored("configs/new.yaml") == {"lora"}
    assert found.ignored(str(tmp_path / "configs" / "old" / "one.yaml")) == {"lora", "bfloat16"}
    assert "lora" not in said(result(tmp_path, CONFIG, ignore=found.ignored("config.yaml")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ignore: lora", "ignore is 'lora', expected a list of finding ids such as [bfloat16]"),
        ("ignore: [lorra]", "ignore names 'lorra', which is the id of no finding; did you mean lora?"),
        ("paths: [a]", "paths is ['a'], expected patterns such as configs/old/*, each with its ignore"),
        ("paths: {a: [lora]}", "paths.a is ['lora'], expected ignore and a list of ids"),
        ("paths: {a: {ignore: [1]}}", "paths.a.ignore is [1], expected a list of finding ids such as [bfloat16]"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / ".preflight.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        find(tmp_path)
    assert caught.value.findings[0].message == f"{tmp_path / '.preflight.yaml'}: {message}"


@given(ids=st.lists(ID, max_size=3), before=st.sampled_from(["", "  ", "a: 1 ", "\t"]), after=st.sampled_from(["", " why", "]"]))
def test_a_comment_reads_back(ids: list[str], before: str, after: str) -> None:
    line = f"{before}# preflight: ignore[{', '.join(ids)}]{after}"
    assert comments(f"x: 1\n{line}\n") == {2 if before.strip() else WHOLE_FILE: frozenset(ids)}


@given(st.text(max_size=200))
def test_any_text_has_its_comments(text: str) -> None:
    assert all(line >= 0 for line in comments("preflight" + text))
