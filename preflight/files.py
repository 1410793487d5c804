"""What can be seen of the paths that a config names, on the machine that asks: never what stands in them."""

from __future__ import annotations

import os
import shutil
from enum import Enum
from pathlib import Path


class Place(Enum):
    """What is at a path. LOCKED: there, but not to be read, or not to be written in."""

    MISSING = "missing"
    FILE = "file"
    FOLDER = "folder"
    LOCKED = "locked"


def place(path: str, *, writing: bool = False) -> Place:
    """What is at `path`, as seen from the working directory; for `writing`, LOCKED also where it cannot be made."""
    try:
        found = Path(path).expanduser()
        nearest = _nearest(found) if writing else found
        if not nearest.exists():
            return Place.MISSING
        if not os.access(nearest, os.W_OK if writing else os.R_OK):
            return Place.LOCKED
        if not found.exists():
            return Place.MISSING
        return Place.FOLDER if found.is_dir() else Place.FILE
    except (OSError, ValueError, RuntimeError):  # a name no file can have, a home nobody has
        return Place.MISSING


def free_bytes(path: str | None) -> int | None:
    """Bytes that this user may still write at `path`; None where neither it nor the folder it stands in is here."""
    if path is None:
        return None
    try:
        found = Path(path).expanduser()
        folder = found if found.is_dir() else found.parent
        if folder == Path() or not folder.is_dir():
            return None
        return shutil.disk_usage(folder).free
    except (OSError, ValueError, RuntimeError):
        return None


def _nearest(path: Path) -> Path:
    """`path` or the nearest folder above it that exists."""
    return next((folder for folder in (path, *path.parents) if folder.exists()), path)
