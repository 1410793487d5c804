"""What is offered for the trainers' own configs holds: in the file it exits 0 with the peak that was stated, and no more was needed.

Each file on one of three cards by turns; the whole law, every file on every card, takes minutes: `--whole-corpus`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from preflight.pipeline import inspect_all
from preflight.report import Result
from tests.offers import broken, larger, tree

ADAPTERS = Path(__file__).parent / "adapters"
CORPUS = Path(__file__).parents[2] / "shared" / "corpus"
CARDS = ("8", "16", "24")
EACH = 9  # every ninth file of the corpus, in the order of their names


def chosen() -> list[tuple[Path, Path, str]]:
    """A config, the folder that it is copied with, and a card's GiB."""
    hand = [(path, ADAPTERS, memory) for path, memory in ((ADAPTERS / "configs" / name, memory) for name, memory in WRITTEN)]
    files = [path for path in sorted(CORPUS.rglob("*")) if path.is_file() and path.suffix != ".tsv"]
    return hand + [(path, CORPUS, CARDS[index % 3]) for index, path in enumerate(files[::EACH])]
