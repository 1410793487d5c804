"""The tables of errors that the README carries are those that the engine has today, and the log shows them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import accuracy

README = Path(__file__).parent.parent / "README.md"
TABLES = {
    "accuracy": accuracy.table,
    "accuracy of strategies": accuracy.strategies_table,
    "measured": accuracy.measured_table,
}


@pytest.mark.parametrize(("name", "make"), TABLES.items(), ids=TABLES)
def test_the_readme_carries_the_table(
    name: str, make: Callable[[], Iterator[str]], request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    place = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end of {name} -->)", re.DOTALL)
    table = "".join(f"{line}\n" for line in make())
    with capsys.disabled():
        print(f"\n{table}", end="")
    page = README.read_text(encoding="utf-8")
    if request.config.getoption("--rewrite-goldens"):
        README.write_text(place.sub(lambda _: table, page), encoding="utf-8")
        return
    found = place.search(page)
    assert found is not None
    assert found[0] == table, "pytest --rewrite-goldens writes it anew"
