"""Real configs of the trainers are read: found by the right adapter, valid as a spec, without a key that nobody knows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from preflight import document, schema
from preflight.adapters import detect
from preflight.finding import ConfigError, Finding
from preflight.pipeline import inspect_all

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"
DIFFSR = ("seed_ocean_agent", "diffsr_upstream", "diffsr_forks")
FILES = [("diffsr", path) for group in DIFFSR for path in sorted((CORPUS / "diffsr" / group).glob("*.yaml"))]
FILES += [("hunyuandit", path) for path in sorted((CORPUS / "hunyuandit").rglob("*.yaml"))]
#: Families of which some networks are not modelled: each file is read, or refused for that alone.
PARTLY = [
    (family, path)
    for family in ("sr3", "resshift", "basicsr", "neuraloperator")
    for path in sorted((CORPUS / "diffsr" / family).iterdir() if CORPUS.exists() else ())
]
PARTLY += [("ai-toolkit", path) for path in sorted((CORPUS / "wan" / "ai_toolkit").glob("*.y*ml"))]
#: Findings that say that a file is not what starts a training: data, validation, a launcher's or a network's settings.
BESIDE = ("not-a-training-config", "not-a-mapping", "empty-config")
HERE = pytest.mark.skipif(not CORPUS.exists(), reason=f"{CORPUS} is not on this machine")


@HERE
def test_the_corpus_is_not_empty() -> None:
    assert len(FILES) >= 20


@HERE
@pytest.mark.parametrize(("family", "path"), FILES, ids=lambda v: v.stem[-40:] if isinstance(v, Path) else v)
def test_a_template_is_read(family: str, path: Path) -> None:
    config = document.read(str(path))
    adapter = detect(config)
    reading = adapter.read(config)
    assert adapter.name == family
    assert schema.check(reading.spec, "spec") == []
    assert [finding.message for finding in reading.findings if finding.severity == "error"] == []
    assert [finding.message for finding in reading.findings if finding.id == "unknown-key"] == []


@HERE
@pytest.mark.parametrize(("family", "path"), PARTLY, ids=lambda v: v.stem[-40:] if isinstance(v, Path) else v)
def test_a_restoration_config_is_read_or_names_what_is_not_modelled(family: str, path: Path) -> None:
    config = document.read(str(path))
    adapter = detect(config)
    assert adapter.name == family
    try:
        reading = adapter.read(config)
    except ConfigError as error:
        found = error.findings
    else:
        found = tuple(finding for finding in reading.findings if finding.severity == "error" or finding.id == "unknown-key")
        assert schema.check(reading.spec, "spec") == []
    assert [finding.message for finding in found if finding.id not in ("not-modelled", "trainer-refuses")] == []


def outcome(path: Path) -> tuple[str, list[Finding]]:
    """Whether the file is "judged", "refused", or "beside" as no training config; and what is wrong with it."""
    results = inspect_all(str(path), gpu="a100-80gb")
    errors = [finding for result in results for finding in result.findings if finding.severity == "error"]
    if all(result.verdict != "cannot-judge" for result in results):
        return "judged", []
    return ("beside" if errors[0].id in BESIDE else "refused"), errors


@HERE
def test_most_training_configs_are_judged_and_the_others_told_why(capsys: pytest.CaptureFixture[str]) -> None:
    counted = {folder: Counter[str]() for folder in sorted({path.parent for path in CORPUS.glob("*/*/*")})}
    for folder, counts in counted.items():
        for path in sorted(folder.iterdir()):
            kind, errors = outcome(path)
            counts[kind] += 1
            for finding in errors:  # one sentence each, at the key that is to blame
                assert finding.message.endswith((".", "?")), path
                assert finding.id != "internal-error", path
                assert finding.key or finding.line or finding.id in ("unknown-phase", "missing-key"), (path, finding)
    total = sum(counted.values(), Counter[str]())
    rows = [(folder.name, counts) for folder, counts in counted.items()]
    with capsys.disabled():
        print("\n\n| configs of | files | judged | refused, with the reason | no training config |\n|---|---|---|---|---|")
        for name, counts in (*rows, ("all", total)):
            print(f"| {name} | {counts.total()} | {counts['judged']} | {counts['refused']} | {counts['beside']} |")
    assert total["judged"] >= 0.85 * (total["judged"] + total["refused"])
