"""The table of errors that the README carries is the one that the engine has today, and the log shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import accuracy

README = Path(__file__).parent.parent / "README.md"
PLACE = re.compile(r"(?<=<!-- accuracy -->\n).*?(?=<!-- end of accuracy -->)", re.DOTALL)


def test_the_readme_carries_the_table(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    lines = list(accuracy.table())
    table = "".join(f"{line}\n" for line in lines)
    with capsys.disabled():
        print(f"\n{table}", end="")
    page = README.read_text(encoding="utf-8")
    if request.config.getoption("--rewrite-goldens"):
        README.write_text(PLACE.sub(lambda _: table, page), encoding="utf-8")
        return
    found = PLACE.search(page)
    assert found is not None
    assert found[0] == table, "pytest --rewrite-goldens writes it anew"
