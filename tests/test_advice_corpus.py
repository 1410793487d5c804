"""What is offered for the trainers' own configs does what it says: in the file it exits 0 with that peak, and no more was needed.

A few hand-written configs of each family, and every so many of the real ones, each on one of three cards.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from preflight.pipeline import inspect_all
from preflight.report import Reduction, Result
from tests.offers import broken, larger, tree

ADAPTERS = Path(__file__).parent / "adapters"
CORPUS = Path(__file__).parents[2] / "shared" / "corpus"
CARDS = ("8", "16", "24")
FIRST, EACH = 8, 14  # so many files of the corpus for one that is tried, none of them slow
#: Hand-written configs and a card that each does not fit: block swap, layers on the host, caching, quantisation, batches, sizes.
WRITTEN = (
    ("ai-toolkit/wan21_24gb.yaml", "16"),
    ("ai-toolkit/wan22_i2v_low.yaml", "24"),
    ("basicsr/realesrgan.yml", "16"),
    ("cogvideo/sat_lora.yaml", "24"),
    ("diffsynth/flux_kontext.sh", "16"),
    ("diffusion-pipe/misplaced.toml", "8"),
    ("fastvideo/cosmos_off.yaml", "16"),
    ("finetrainers/control.sh", "16"),
    ("hunyuandit/torchrun.sh", "16"),
    ("kohya/flux_24gb.sh", "16"),
    ("ltx-trainer/ltxv_reference.yaml", "8"),
    ("musubi/two_cards.sh", "24"),
    ("musubi/wan21.sh", "16"),
    ("resshift/eight_gpus.yaml", "8"),
    ("simpletuner/wan_clips.json", "16"),
    ("sr3/ddpm.json", "8"),
    ("videox-fun/what_is_left_out.sh", "16"),
)


def real() -> list[tuple[Path, str]]:
    """Files of the corpus, in the order of their names, and cards by turns."""
    files = [path for path in sorted(CORPUS.rglob("*")) if path.is_file() and path.suffix != ".tsv"]
    return [(path, CARDS[number % len(CARDS)]) for number, path in enumerate(files[FIRST::EACH])]


def wrong(path: Path, copy: Path, memory: str) -> Iterator[str]:
    """What is wrong with the advice for the config at `path`, of which `copy` may be written to; it is asked for anew each time."""
    before = path.read_bytes()
    for result in inspect_all(str(copy), gpu_memory_gib=float(memory)):
        if result.verdict == "does-not-fit":
            yield from unreasoned(result)
            for number, offer in enumerate(result.reductions, 1):
                copy.write_bytes(before)
                yield from absurd(result, offer)
                yield from broken(copy, result, number, memory)
                yield from larger(result, offer, float(memory))


def absurd(result: Result, offer: Reduction) -> Iterator[str]:
    """Stamps and stills that nobody trains videos on."""
    assert result.spec is not None
    if result.spec.data.frames > 1:
        sides = [offer.changes[key] for key in ("data.height", "data.width") if key in offer.changes]
        if offer.changes.get("data.frames", 9) < 9 or min(sides, default=256) < 256:
            yield f"nobody trains at that: {offer.summary}"


def unreasoned(result: Result) -> Iterator[str]:
    """Where there is no offer: what is missing of the reason."""
    if result.reductions:
        return
    found = [finding for finding in result.findings if finding.id == "no-reduction"]
    if len(found) != 1:
        yield "neither an offer nor a reason"
    for finding in found:
        if "alone take" not in finding.message:
            yield f"no part is named: {finding.message}"
        if not (finding.fix or "").startswith(("as it stands it fits on ", "no GPU of the catalog")):
            yield f"no GPU is named: {finding.fix}"


@pytest.mark.parametrize(("name", "memory"), WRITTEN)
def test_an_offer_for_a_hand_written_config_does_what_it_says(name: str, memory: str, tmp_path: Path) -> None:
    path = ADAPTERS / "configs" / name
    copy = tree(path, ADAPTERS, ("files",), tmp_path)
    assert list(wrong(path, copy, memory)) == []


@pytest.mark.skipif(not CORPUS.exists(), reason=f"{CORPUS} is not on this machine")
@pytest.mark.parametrize(("path", "memory"), real(), ids=lambda value: value.stem[-40:] if isinstance(value, Path) else value)
def test_an_offer_for_a_real_config_does_what_it_says_or_there_is_a_reason(path: Path, memory: str, tmp_path: Path) -> None:
    assert list(wrong(path, tree(path, CORPUS, (), tmp_path), memory)) == []


def test_a_key_that_does_more_than_it_is_taken_for_is_known_to(tmp_path: Path) -> None:
    copy = tree(ADAPTERS / "configs" / "ai-toolkit" / "wan22_i2v_low.yaml", ADAPTERS, (), tmp_path)
    (result,) = inspect_all(str(copy), gpu_memory_gib=24.0)
    offer = result.reductions[0]
    assert list(offer.keys) == ["config.process[0].model.low_vram"]
    assert {"precision.quantized_on", "model.experts"} <= set(offer.changes)
