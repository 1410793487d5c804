"""Real configs of the trainers are read: found by the right adapter, valid as a spec, without a key that nobody knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from preflight import document, schema
from preflight.adapters import ADAPTERS, by_name, detect
from preflight.finding import ConfigError

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
OTHERS = [path for folder in ("wan/fastvideo",) for path in sorted((CORPUS / folder).glob("*.y*ml"))]
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
    assert [finding.message for finding in found if finding.id != "not-modelled"] == []


@HERE
@pytest.mark.parametrize("path", OTHERS, ids=lambda v: v.stem[-40:])
def test_another_trainers_config_is_not_taken_for_one_of_these(path: Path) -> None:
    config = document.read(str(path))
    assert [name for name in ADAPTERS if by_name(name).matches(config)] == []
