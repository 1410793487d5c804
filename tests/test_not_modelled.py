"""Models that configs name and nobody has written yet are refused by name, and are none of those that are."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from preflight import catalog
from preflight.finding import ConfigError

TABLE = yaml.safe_load((Path(__file__).parent.parent / "preflight" / "catalog" / "not-modelled.yaml").read_text(encoding="utf-8"))
NAMES = [(name, alias) for name, aliases in TABLE["names"].items() for alias in (name, *aliases)]


@pytest.mark.parametrize(("name", "alias"), NAMES, ids=str)
def test_it_is_refused_and_called_by_its_name(name: str, alias: str) -> None:
    with pytest.raises(ConfigError) as caught:
        catalog.network(alias)
    (finding,) = caught.value.findings
    assert (finding.id, finding.severity) == ("unknown-model", "error")
    assert finding.message == f"Model {alias!r} ({name}) is not modelled yet."


def test_no_name_means_two_networks() -> None:
    owners: dict[str, set[str]] = {}
    for name, alias in NAMES:
        owners.setdefault(catalog.fold(alias), set()).add(name)
    assert {alias: names for alias, names in owners.items() if len(names) > 1} == {}
