"""`--plot`: resolutions, durations, categories and captions of each index, as shares of its samples beside each other."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from preflight.data.split import Split
from preflight.data.statistics import BUCKETS, STEP, Statistics, Wanted
from preflight.planning import chart

COLOURS = (chart.BLUE, chart.ORANGE)
BARS = 8  # that a panel of 400 dots has room for
LETTERS = 16  # of a category's name
#: Families that hold the letters of East Asian names, of which those of this machine are used.
FONTS = ("Noto Sans CJK KR", "Noto Sans CJK JP", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo", "WenQuanYi Zen Hei")

Bars = list[tuple[str, list[float]]]  # the label, and a share of the samples of each index in per cent


def draw(splits: Sequence[Split], wanted: Wanted, path: Path) -> None:
    """Writes the picture. Raises ConfigError where it cannot be written."""
    import matplotlib as mpl
    from matplotlib import font_manager

    found = [split.statistics for split in splits]
    panels: list[tuple[str, Bars]] = [
        ("resolution (width × height, pixels)", _ranked(found, _sizes)),
        ("duration of clips (seconds)", _durations(found)),
        ("category", _ranked(found, _categories)),
        ("caption (characters)", _lengths(found)),
    ]
    there = set(font_manager.get_font_names())
    look: Any = dict(chart.LOOK) | {"axes.grid": False, "font.family": ["DejaVu Sans", *(font for font in FONTS if font in there)]}
    with mpl.rc_context(look), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name without its font is boxes in a PNG; an SVG's reader has fonts
        made, _ = chart.figure(7.5)
        made.clear()
        for panel, (label, bars) in zip(made.subplots(2, 2).reshape(-1), panels, strict=True):
            _panel(panel, label, bars, [split.name for split in splits])
        made.axes[0].legend(loc="lower right", frameon=False, fontsize=9)
        size = f" · training size {wanted.width}×{wanted.height}" if wanted.width and wanted.height else ""
        title = " · ".join(f"{split.name} {split.statistics.rows:,} samples" for split in splits)
        made.suptitle(f"{title}{size}", fontsize=11)
        chart.save(made, path)


def _panel(panel: Any, label: str, bars: Bars, names: Sequence[str]) -> None:
    thick = 0.8 / len(names)
    for number, name in enumerate(names):
        places = [place + number * thick for place in range(len(bars))]
        panel.barh(places, [shares[number] for _, shares in bars], height=thick * 0.9, color=COLOURS[number], label=name)
    middle = [place + (len(names) - 1) * thick / 2 for place in range(len(bars))]
    panel.set_yticks(middle, [name for name, _ in bars], fontsize=9)
    panel.invert_yaxis()
    panel.set_title(label, fontsize=11)
    panel.set_xlabel("share of samples (%)", fontsize=9)
    panel.tick_params(axis="x", labelsize=9)
    if not bars:
        panel.text(0.5, 0.5, "not in the index", ha="center", va="center", transform=panel.transAxes)
        panel.set_xticks([])


def _sizes(found: Statistics) -> dict[str, int]:
    return {f"{w}×{h}": number for (w, h), number in found.sizes.counts} if found.sizes else {}


def _categories(found: Statistics) -> dict[str, int]:
    groups = dict(found.categories.counts) if found.categories else {}
    return {name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…": number for name, number in groups.items()}


def _ranked(found: Sequence[Statistics], of: Callable[[Statistics], dict[str, int]]) -> Bars:
    """The most frequent of all indexes together, and the rest as one bar."""
    counts = [of(one) for one in found]
    names = {name: sum(count.get(name, 0) for count in counts) for count in counts for name in count}
    ranked = sorted(names, key=lambda name: (-names[name], name))
    chosen = ranked if len(ranked) <= BARS else ranked[: BARS - 1]
    bars = [(name, [_share(count.get(name, 0), count) for count in counts]) for name in chosen]
    if rest := ranked[len(chosen) :]:
        bars.append((f"{len(rest):,} others", [_share(sum(count.get(name, 0) for name in rest), count) for count in counts]))
    return bars


def _durations(found: Sequence[Statistics]) -> Bars:
    if not any(sum(one.buckets) for one in found):
        return []
    ends = (*BUCKETS[1:], None)
    names = [f"{a}–{b}" if b is not None else f"from {a}" for a, b in zip(BUCKETS, ends, strict=True)]
    return [(name, [_share(one.buckets[place], dict(enumerate(one.buckets))) for one in found]) for place, name in enumerate(names)]


def _lengths(found: Sequence[Statistics]) -> Bars:
    """Captions by length, in as many equal steps as there is room for; the longest hundredth in the last."""
    counts = [dict(one.captions.lengths) if one.captions else {} for one in found]
    if not any(counts):
        return []
    most = max(_beyond(count) for count in counts if count)
    step = most // BARS + 1
    groups = [
        [sum(n for place, n in count.items() if min(place // step, BARS - 1) == bar) for bar in range(BARS)] for count in counts
    ]
    last = next(bar for bar in reversed(range(BARS)) if any(group[bar] for group in groups))
    names = [f"{bar * step * STEP:,}–{(bar + 1) * step * STEP:,}" for bar in range(last)] + [f"from {last * step * STEP:,}"]
    return [(name, [_share(group[bar], dict(enumerate(group))) for group in groups]) for bar, name in enumerate(names)]


def _beyond(count: dict[int, int]) -> int:
    """The step that 99 of 100 captions do not pass."""
    left, whole = sum(count.values()), sum(count.values())
    for place in sorted(count, reverse=True):
        left -= count[place]
        if left < 0.99 * whole:
            return place
    return 0


def _share(part: int, counts: dict[Any, int]) -> float:
    whole = sum(counts.values())
    return 100 * part / whole if whole else 0.0
