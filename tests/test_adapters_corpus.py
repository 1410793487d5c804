"""Real configs of the trainers are read: found by the right adapter, valid as a spec, without a key that nobody knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from preflight import document, schema
from preflight.adapters import ADAPTERS, by_name, detect

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"
DIFFSR = ("seed_ocean_agent", "diffsr_upstream", "diffsr_forks")
FILES = [("diffsr", path) for group in DIFFSR for path in sorted((CORPUS / "diffsr" / group).glob("*.yaml"))]
FILES += [("hunyuandit", path) for path in sorted((CORPUS / "hunyuandit").rglob("*.yaml"))]
OTHERS = [
    path
    for folder in (
        "diffsr/basicsr",
        "diffsr/resshift",
        "diffsr/neuraloperator",
        "wan/ai_toolkit",
        "wan/ltx_trainer",
    )
    for path in sorted((CORPUS / folder).glob("*.y*ml"))
]
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
@pytest.mark.parametrize("path", OTHERS, ids=lambda v: v.stem[-40:])
def test_another_trainers_config_is_not_taken_for_one_of_these(path: Path) -> None:
    config = document.read(str(path))
    assert [name for name in ADAPTERS if by_name(name).matches(config)] == []
