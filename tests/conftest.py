"""Goldens are plain text beside the tests: `pytest --rewrite-goldens` writes them, and a person reviews the diff."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite-goldens", action="store_true", help="write what the tests got as what they expect")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compares a text with the file that holds the expected one."""

    def compare(path: Path, text: str) -> None:
        if request.config.getoption("--rewrite-goldens"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path} is not written yet: pytest --rewrite-goldens writes it"
        assert text == path.read_text(encoding="utf-8")

    return compare
