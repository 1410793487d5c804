"""What each example config reads to, in full, and what is said of configs that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from preflight import document, schema
from preflight.adapters import ADAPTERS, by_name, detect
from preflight.adapters.reading import Reading
from preflight.finding import ConfigError, Finding
from preflight.spec import Spec

HERE = Path(__file__).parent
ROOT = HERE.parent
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
EXAMPLES = HERE / "adapters"
FAMILIES = {
    "train_v100": "wan-lora",
    "train_a100": "wan-lora",
    "train_ti2v_5b": "wan-lora",
    "fno_ocean": "diffsr",
    "hunyuandit_waymo": "hunyuandit",
    "hunyuandit_lora": "hunyuandit",
}
#: Configs as users of each trainer write them, in a folder called as its adapter.
USERS = sorted(p for p in (EXAMPLES / "configs").glob("*/*") if p.suffix != ".txt")
Golden = Callable[[Path, str], None]


def read(path: Path | None = None, *, text: str | None = None, adapter: str | None = None) -> Reading:
    config = document.read("-" if path is None else str(path), text=text)
    return (by_name(adapter) if adapter else detect(config)).read(config)


def told(finding: Finding) -> str:
    place = f"{finding.line}:{finding.column}" if finding.line else "-"
    return f"{place} {finding.severity} {finding.id} {finding.key or '-'}: {finding.message}" + (
        f" [{finding.fix}]" if finding.fix else ""
    )


def shown(reading: Reading) -> str:
    """A reading as a person reviews it: the spec, whose key each value is, what was assumed and what is said."""
    parts = [yaml.safe_dump(reading.spec, sort_keys=False, default_flow_style=None, width=120)]
    parts.append("# read from\n" + "".join(f"{path} <- {key}\n" for path, key in sorted(reading.origins.items())))
    assumed = (f"{path} = {a.value} ({a.source})\n" for path, a in sorted(reading.assumed.items()))
    parts.append("# assumed\n" + "".join(assumed))
    parts.append("# said\n" + "".join(told(finding) + "\n" for finding in reading.findings))
    return "\n".join(parts)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_an_example_config_reads_to_its_golden(path: Path, golden: Golden) -> None:
    golden(EXAMPLES / "configs" / f"{path.stem}.txt", shown(read(path)))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_an_example_config_gives_a_valid_spec(path: Path) -> None:
    reading = read(path)
    assert schema.check(reading.spec, "spec") == []
    assert Spec.from_mapping(reading.spec).to_mapping()["preflight"] == 1
    assert not [finding for finding in reading.findings if finding.severity == "error" or finding.id == "unknown-key"]


@pytest.mark.parametrize(("stem", "family"), FAMILIES.items())
def test_an_example_config_is_known_by_its_content(stem: str, family: str) -> None:
    config = document.read(str(ROOT / "configs" / f"{stem}.yaml"))
    assert [name for name in ADAPTERS if by_name(name).matches(config)] == [family]


@pytest.mark.parametrize("path", sorted((EXAMPLES / "positive").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_good_example_reads_to_its_golden(path: Path, golden: Golden) -> None:
    reading = read(path)
    assert schema.check(reading.spec, "spec") == []
    golden(path.with_suffix(".txt"), shown(reading))


@pytest.mark.parametrize("path", sorted((EXAMPLES / "negative").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_bad_example_is_refused_with_its_sentences(path: Path, golden: Golden) -> None:
    try:
        found = read(path).findings
    except ConfigError as error:
        found = error.findings
    assert any(finding.severity == "error" for finding in found)
    golden(path.with_suffix(".txt"), "".join(told(finding) + "\n" for finding in found))


@pytest.mark.parametrize("path", USERS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_users_config_reads_to_its_golden(path: Path, golden: Golden) -> None:
    """Found by its content, and read, or refused in sentences."""
    config = document.read(str(path))
    assert [name for name in ADAPTERS if by_name(name).matches(config)] == [path.parent.name]
    try:
        reading = read(path)
    except ConfigError as error:
        golden(path.with_suffix(".txt"), "".join(told(finding) + "\n" for finding in error.findings))
        return
    assert schema.check(reading.spec, "spec") == []
    golden(path.with_suffix(".txt"), shown(reading))


def test_a_config_that_nobody_knows_says_what_it_saw_and_what_there_is() -> None:
    with pytest.raises(ConfigError) as caught:
        read(text="foo: 1\nbar: {baz: 2}\n")
    (finding,) = caught.value.findings
    assert finding.id == "unknown-family"
    assert finding.message == (
        f"unknown family: no adapter knows a config with the top-level keys foo, bar; there are {', '.join(ADAPTERS)}."
    )


def test_an_adapter_that_is_not_there_is_told_from_a_slip() -> None:
    with pytest.raises(ConfigError, match=r"unknown adapter 'wan_lora': did you mean wan-lora\?"):
        by_name("wan_lora")


def test_a_forced_adapter_reads_what_it_would_not_detect() -> None:
    text = "rank: 8\nheight: 480\nwidth: 832\nmodel: wan2.1-t2v-1.3b\nbatch_size: 2\n"
    assert read(text=text).spec["model"]["name"] == "wan2.1-t2v-1.3b"
    with pytest.raises(ConfigError, match="expected one of DiT-g/2, DiT-XL/2"):
        read(text=text, adapter="hunyuandit")


@pytest.mark.parametrize("version", ["2", "true", "'1'", "null"])
def test_a_spec_of_another_version_is_refused(version: str) -> None:
    with pytest.raises(ConfigError, match="expected 1") as caught:
        read(text=f"preflight: {version}\nmodel: {{name: flux.1-dev}}\n")
    assert (caught.value.findings[0].line, caught.value.findings[0].key) == (1, "preflight")


def test_a_canonical_config_is_read_as_it_stands() -> None:
    text = "preflight: 1\nmodel: {name: flux.1-dev}\ntrain: {method: full, batch: 2}\ndata: {height: 512, width: 512}\n"
    reading = read(text=text)
    assert reading.spec == yaml.safe_load(text)
    assert reading.origins["train.batch"] == "train.batch"
    assert reading.spell({"train.batch": 1}) == {"train.batch": 1}
