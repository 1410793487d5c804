"""Where the package's own data lies, in an installed wheel and in a source checkout."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable  # Python 3.11; 3.10 has the class elsewhere


def catalog() -> Traversable:
    """The folder with `gpus/`, `networks/` and `components/`."""
    return files("preflight") / "catalog"


def schemas() -> Traversable:
    """The folder of `NAME.schema.json`: inside the installed package, else beside it in a checkout."""
    package = files("preflight")
    installed = package / "schemas"
    if installed.is_dir():
        return installed
    from pathlib import Path

    return Path(str(package)).parent / "schemas"
