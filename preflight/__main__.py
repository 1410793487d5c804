"""`python -m preflight` and the console script."""

from __future__ import annotations

import sys


def main() -> int:
    """The exit status of the command line; an interrupt is quiet even while modules are still being imported."""
    try:
        from preflight.cli import main as run

        return run()
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells report it


if __name__ == "__main__":
    sys.exit(main())
