"""What `-v` says of a GPU and of the host, line by line, for three kinds of run: `explained/*.txt`."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from preflight.cli import main

HERE = Path(__file__).parent / "explained"
CONFIGS = Path(__file__).parent.parent / "configs"
RUNS = {
    "zero2_offload": (CONFIGS / "hunyuandit_waymo.yaml", ()),
    "fsdp_ulysses": (CONFIGS / "train_v100.yaml", ()),
    "block_swap": (HERE / "block_swap.toml", ("--gpu", "rtx4090-24gb")),
}
Golden = Callable[[Path, str], None]


@pytest.mark.parametrize(("name", "config", "flags"), [(name, *run) for name, run in RUNS.items()], ids=RUNS)
def test_every_line_of_a_run_is_explained(name: str, config: Path, flags: tuple[str, ...], golden: Golden) -> None:
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        main([str(config), "-v", *flags])
    lines = out.getvalue().splitlines()
    first, last = (next(i for i, line in enumerate(lines) if line.startswith(word)) for word in ("  one GPU", "  tolerance"))
    golden(HERE / f"{name}.txt", "".join(f"{line}\n" for line in lines[first:last]))
