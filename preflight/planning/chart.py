"""What all charts share: where they are written, and how they look. matplotlib comes with the `plot` extra."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from preflight.finding import ConfigError, Finding

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("svg", "png")
DOTS_PER_INCH = 100
INCHES_WIDE = 8.0  # 800 dots, at which every label must be legible
# colours that stay apart for the colour-blind (Okabe and Ito 2008)
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
LOOK: Mapping[str, Any] = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "svg.hashsalt": "preflight",  # the same picture is the same file
    "svg.fonttype": "none",
}


def destination(wanted: str, stem: str) -> Path:
    """The file to write: `wanted` itself, or STEM.svg or STEM.png where only the format is given.

    Raises ConfigError for another format, and where matplotlib is missing.
    """
    from importlib.util import find_spec

    path = Path(f"{stem}.{wanted}" if wanted in FORMATS else wanted)
    if path.suffix.lower().lstrip(".") not in FORMATS:
        raise _wrong(f"argument --plot: {wanted!r} is not svg, png or a file that ends in one of them")
    if find_spec("matplotlib") is None:
        raise _wrong("argument --plot: charts need matplotlib; pip install 'preflight-train[plot]' brings it")
    return path


def figure(height: float, rows: int = 1) -> tuple[Figure, list[Any]]:
    """A figure of that height in inches, with so many axes above each other."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_look()):
        made = Figure(figsize=(INCHES_WIDE, height), dpi=DOTS_PER_INCH, layout="constrained")
        axes = made.subplots(rows, 1, sharex=True, squeeze=False)
    return made, list(axes[:, 0])


def save(made: Figure, path: Path) -> None:
    """Write the figure, without the date. Raises ConfigError where the file cannot be written."""
    import matplotlib as mpl

    kind = path.suffix.lower().lstrip(".")
    try:
        with mpl.rc_context(_look()):
            made.savefig(path, format=kind, metadata={"Date": None} if kind == "svg" else None)
    except OSError as problem:
        raise _wrong(f"argument --plot: {path} cannot be written: {problem.strerror or problem}") from None


def _look() -> Any:
    return dict(LOOK)


def _wrong(message: str) -> ConfigError:
    return ConfigError(Finding(id="command-line", severity="error", message=message))
