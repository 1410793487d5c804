"""Reports as values, written down: what a person reads and what a program reads."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import preflight
from preflight import paths
from preflight.finding import Finding
from preflight.report import COMPONENTS, Memory, Phase, Reduction, Report, Result
from preflight.reporters import FORMATS, Style, render
from preflight.spec import Spec
from preflight.units import GIB

SPEC = Spec.from_mapping(
    {
        "preflight": 1,
        "model": {"name": "wan2.2-t2v-a14b"},
        "train": {"method": "lora", "lora": {"rank": 16}, "checkpointing": {"every": 2}},
        "data": {"height": 720, "width": 1280, "frames": 49},
    }
)
WARNING = Finding(
    id="no-bf16", severity="warning", message="bf16 has no hardware on a V100", key="mixed_precision", line=12, column=3
)
TOO_LARGE = Result(
    config="configs/train_v100.yaml",
    adapter="wan-lora",
    verdict="does-not-fit",
    header="wan-lora · wan2.2-t2v-a14b · LoRA r16 · 49×720×1280 · batch 1×16 · 2 × v100-32gb (fsdp, sequence 2)",
    spec=SPEC,
    memory=Memory(
        peak_bytes=43 * GIB,
        peak_phase="step",
        capacity_bytes=32 * GIB,
        usable_bytes=29 * GIB,
        activation_bytes=14 * GIB,
        activation_limit_bytes=22 * GIB,
        phases=(
            Phase(name="load", allocated_bytes=26 * GIB, reserved_bytes=27 * GIB),
            Phase(name="step", allocated_bytes=40 * GIB, reserved_bytes=42 * GIB),
            Phase(name="save", allocated_bytes=None, reserved_bytes=None),
        ),
        components=dict(zip(COMPONENTS, (26 * GIB, GIB // 5, GIB // 5, 0, 14 * GIB, GIB), strict=True)),
    ),
    findings=(
        Finding(
            id="too-large",
            severity="error",
            message="the step needs 43 GiB of 29 GiB usable",
            fix="fewer frames",
            key="frame_num",
            line=7,
            column=12,
        ),
        WARNING,
        Finding(id="default", severity="note", message="optimizer is not set; the trainer uses adamw."),
        Finding(id="default", severity="note", message="sample_steps is not set; the trainer uses 40."),
    ),
    reductions=(
        Reduction(
            changes={"data.frames": 21},
            keys={"frame_num": 21, "data.train.batch": 2, "data.shape": (64, 64)},
            peak_bytes=24 * GIB,
            summary="frames 49 → 21",
        ),
        Reduction(changes={"data.height": 480}, keys={"size": "832*480"}, peak_bytes=22 * GIB, summary="480 × 832"),
    ),
)
FITS = replace(TOO_LARGE, config="a.yaml", verdict="fits", findings=(), reductions=())
UNREADABLE = Result(
    config="b.yaml",
    findings=(Finding(id="unreadable", severity="error", message="b.yaml does not exist, expected a training config"),),
)
RESULTS = (TOO_LARGE, FITS, replace(FITS, verdict="tight", findings=(WARNING,)), UNREADABLE)


def text(*results: Result, **style: Any) -> str:
    return render(Report(results=results), "text", Style(**style))


def test_what_does_not_fit_reads_as_a_person_would_say_it() -> None:
    assert text(TOO_LARGE, tolerance=0.05) == (
        "wan-lora · wan2.2-t2v-a14b · LoRA r16 · 49×720×1280 · batch 1×16 · 2 × v100-32gb (fsdp, sequence 2)\n"
        "configs/train_v100.yaml does not fit: needs 43.00 GiB of 29.00 GiB usable (32.00 GiB on the GPU)\n"
        "\n"
        "  weights         26.00 GiB  ██████████████████████████████\n"
        "  adapters         0.20 GiB  ▏\n"
        "  gradients        0.20 GiB  ▏\n"
        "  optimizer               0\n"
        "  activations     14.00 GiB  ████████████████\n"
        "  overhead         1.00 GiB  █\n"
        "  phases      load 26.00 GiB · step 40.00 GiB (worst) · save not computed\n"
        "  69 % rule   activations 14.00 GiB of at most 22.00 GiB: kept\n"
        "  tolerance   ± 5 %, already kept free of what is usable\n"
        "\n"
        "configs/train_v100.yaml:7:12: error: the step needs 43 GiB of 29 GiB usable [too-large]\n"
        "    fix: fewer frames\n"
        "configs/train_v100.yaml:12:3: warning: bf16 has no hardware on a V100 [no-bf16]\n"
        "\n"
        "Any one of these fits:\n"
        "  1. frames 49 → 21: 24.00 GiB\n"
        "     frame_num: 21, data.train.batch: 2, data.shape: [64, 64]\n"
        "  2. 480 × 832: 22.00 GiB\n"
        "     size: 832*480\n"
        "\n"
        "2 notes (-v shows all):\n"
        "  optimizer is not set; the trainer uses adamw.\n"
        "  sample_steps is not set; the trainer uses 40.\n"
    )


def test_what_cannot_be_read_is_two_lines() -> None:
    assert text(UNREADABLE) == (
        "b.yaml cannot be judged\nb.yaml: error: b.yaml does not exist, expected a training config [unreadable]\n"
    )


def test_several_configs_end_with_a_count() -> None:
    assert text(*RESULTS).endswith("\n\n4 configs: 1 fit, 1 tight, 1 too large, 1 not judged\n")


def test_quiet_prints_only_what_failed() -> None:
    quiet = text(*RESULTS, quiet=True)
    assert "a.yaml" not in quiet
    assert "b.yaml cannot be judged" in quiet
    assert text(FITS, quiet=True) == ""


def test_strict_says_that_warnings_count() -> None:
    tight = replace(FITS, verdict="tight", findings=(WARNING,))
    assert "refused for 1 warning (--strict)" in text(tight, quiet=True, strict=True)
    assert text(tight, quiet=True) == ""


def test_a_broken_rule_is_named_beside_the_number() -> None:
    broken = replace(FITS, memory=replace(FITS.memory, activation_bytes=23 * GIB))
    assert "activations 23.00 GiB of at most 22.00 GiB: broken" in text(broken)


def test_what_is_offered_names_the_users_keys_and_what_to_set_them_to() -> None:
    offered = text(TOO_LARGE).partition("Any one of these fits:\n")[2].splitlines()
    assert yaml.safe_load("{" + offered[1] + "}") == {"frame_num": 21, "data.train.batch": 2, "data.shape": [64, 64]}


def test_what_there_is_room_for_is_not_called_a_fix() -> None:
    assert "There is room for any one of these:\n  1. " in text(replace(FITS, reductions=TOO_LARGE.reductions))
    assert "There is room for this:\n  1. " in text(replace(FITS, reductions=TOO_LARGE.reductions[:1]))


def test_a_config_with_much_to_say_stays_under_40_lines_until_all_is_asked_for() -> None:
    long = replace(
        TOO_LARGE,
        findings=TOO_LARGE.findings * 20,
        reductions=TOO_LARGE.reductions * 10,
    )
    assert len(text(long).splitlines()) < 40
    assert "more findings (-v shows all)" in text(long)
    assert "more offers (-v shows all)" in text(long)
    assert text(long, verbose=True).count("[too-large]") == 20


def test_a_terminal_shows_the_same_words_in_colour() -> None:
    coloured = text(*RESULTS, colour=True)
    assert "\x1b[" in coloured
    shown = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", coloured).splitlines()]
    assert shown == text(*RESULTS).splitlines()


def test_control_characters_of_a_config_are_shown_not_obeyed() -> None:
    evil = replace(UNREADABLE, config="\x1b[2Jb\n.yaml")
    assert "\x1b" not in text(evil)
    assert text(evil).startswith("\\x1b[2Jb\\x0a.yaml cannot be judged\n")


def test_every_reporter_is_in_the_table() -> None:
    files = {path.stem for path in (Path(preflight.__file__).parent / "reporters").glob("*.py")} - {"__init__"}
    assert files == set(FORMATS)


def schema() -> Any:
    return json.loads((paths.schemas() / "report.schema.json").read_text(encoding="utf-8"))


def document(*results: Result, **style: Any) -> Any:
    written = render(Report(results=results), "json", Style(**style))
    assert written.isascii()
    return json.loads(written)


def validate(instance: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.Draft202012Validator(schema()).validate(instance)


def test_json_is_the_contract() -> None:
    answer = document(TOO_LARGE)["results"][0]
    validate({"schema": "preflight.report/1", "results": [answer]})
    assert list(answer) == ["config", "adapter", "verdict", "spec", "memory", "findings", "reductions"]
    assert answer["memory"]["phases"][1] == {
        "name": "step",
        "allocated_bytes": 40 * GIB,
        "reserved_bytes": 42 * GIB,
    }
    assert answer["spec"]["train"]["checkpointing"] == {"every": 2}
    assert answer["reductions"][0]["keys"] == {"frame_num": 21, "data.train.batch": 2, "data.shape": [64, 64]}
    assert answer["findings"][1] == {
        "id": "no-bf16",
        "severity": "warning",
        "message": "bf16 has no hardware on a V100",
        "key": "mixed_precision",
        "file": None,
        "line": 12,
        "column": 3,
        "fix": None,
    }


def test_a_finding_in_a_file_that_the_config_names_says_which() -> None:
    there = replace(
        TOO_LARGE, findings=(replace(WARNING, file="configs/dataset.toml"), replace(WARNING, file="x.json", line=None, column=None))
    )
    assert "configs/dataset.toml:12:3: warning: bf16 has no hardware on a V100 [no-bf16]\n" in text(there)
    assert "\nx.json: warning: " in text(there)
    findings = document(there)["results"][0]["findings"]
    validate(document(there))
    assert [(finding["file"], finding["line"]) for finding in findings] == [("configs/dataset.toml", 12), ("x.json", None)]


def test_json_has_every_key_when_nothing_was_computed() -> None:
    answer = document(UNREADABLE)
    validate(answer)
    memory = answer["results"][0]["memory"]
    assert memory["components"] == dict.fromkeys(COMPONENTS)
    assert {key for key, value in memory.items() if value is None} == {
        "peak_bytes",
        "peak_phase",
        "capacity_bytes",
        "usable_bytes",
        "activation_bytes",
        "activation_limit_bytes",
    }


@given(
    style=st.builds(Style, colour=st.booleans(), quiet=st.booleans(), verbose=st.booleans(), strict=st.booleans(), width=st.just(9))
)
def test_json_is_the_same_whatever_the_flags(style: Style) -> None:
    report = Report(results=RESULTS)
    assert render(report, "json", style) == render(report, "json", Style())


@given(
    message=st.text(min_size=1),
    key=st.none() | st.text(min_size=1),
    value=st.floats() | st.text() | st.booleans() | st.none(),
)
def test_json_and_text_take_whatever_a_config_holds(message: str, key: str | None, value: object) -> None:
    finding = Finding(id="x", severity="error", message=message, key=key)
    change = Reduction(changes={"a": value}, keys={message: value}, peak_bytes=1, summary="s")
    result = replace(UNREADABLE, findings=(finding,), reductions=(change,))
    validate(document(result))
    assert text(result).isprintable() or "\n" in text(result)


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("verdict",), "maybe"),
        (("memory", "peak_bytes"), 1.5),
        (("memory", "peak_bytes"), None),
        (("memory", "components", "weights"), -1),
        (("memory", "components", "cache"), 1),
        (("memory", "resident"), {}),
        (("findings", 0, "severity"), "fatal"),
        (("findings", 0, "line"), 0),
        (("findings", 0, "file"), ""),
        (("findings", 0, "file"), 1),
        (("spec",), None),
        (("spec",), {"preflight": 2}),
        (("extra",), 1),
    ],
)
def test_the_schema_refuses_another_shape(path: tuple[str | int, ...], wrong: object) -> None:
    report = document(TOO_LARGE)
    place = report["results"][0]
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = wrong
    with pytest.raises(jsonschema.ValidationError):
        validate(report)


@pytest.mark.parametrize("key", ["config", "adapter", "verdict", "spec", "memory", "findings", "reductions"])
def test_the_schema_wants_every_key(key: str) -> None:
    report = document(TOO_LARGE)
    del report["results"][0][key]
    with pytest.raises(jsonschema.ValidationError):
        validate(report)


def test_what_is_not_judged_says_why() -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate(document(replace(UNREADABLE, findings=())))
