"""The file on disk: read as bytes, and replaced in one step or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from preflight.finding import ConfigError, Finding
from preflight.source import BYTE_ORDER_MARKS


@dataclass(frozen=True, kw_only=True, slots=True)
class Original:
    """A file's bytes, and the text in them without its byte order mark."""

    path: Path
    content: bytes
    mark: bytes
    encoding: str

    @property
    def text(self) -> str:
        return self.content[len(self.mark) :].decode(self.encoding)

    def encoded(self, text: str) -> bytes:
        return self.mark + text.encode(self.encoding)


def original(path: str) -> Original:
    """The file at `path`, through a symbolic link; raises ConfigError when it cannot be read."""
    try:
        place = Path(path).resolve(strict=True)
        content = place.read_bytes()
    except OSError as problem:
        raise _refused(path, f"cannot be read: {problem.strerror or problem}") from None
    mark, name = next(((mark, name) for mark, name in BYTE_ORDER_MARKS if content.startswith(mark)), (b"", "utf-8"))
    wide = {"utf-16": "utf-16-le", "utf-32": "utf-32-le"}
    order = "be" if mark in (b"\xfe\xff", b"\x00\x00\xfe\xff") else "le"
    encoding = wide[name].replace("le", order) if name in wide else "utf-8"
    return Original(path=place, content=content, mark=mark, encoding=encoding)


def refuse_unwritable(path: str, tree: Path) -> None:
    """Raises ConfigError with one sentence where the file at `path` must not be replaced.

    That is: standard input, what is no plain file, what may not be written, and a symbolic link that leads out of `tree`.
    """
    if path == "-":
        raise _refused("standard input", "cannot be edited; give the file's name, or take the change with --diff")
    place = Path(path)
    target = place.resolve()
    if place.is_symlink() and not target.is_relative_to(tree.resolve()):
        raise _refused(path, f"is a symbolic link to {target}, outside of {tree}, so it is not edited")
    if not stat.S_ISREG(target.stat().st_mode):
        raise _refused(path, "is no plain file, so it is not edited")
    if not target.stat().st_mode & 0o222 or not os.access(target, os.W_OK):
        raise _refused(path, "is read-only, so it is not edited")


def replace(path: str, old: Original, content: bytes) -> None:
    """Puts `content` in the place of the file that `old` was read from, with its mode and owner.

    Raises ConfigError, and leaves the file as it is, when it has changed since, or its folder takes no new file.
    """
    temporary = None
    try:
        before = old.path.stat()
        handle, temporary = tempfile.mkstemp(dir=old.path.parent, prefix=f".{old.path.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            _like(file.fileno(), before)
            os.fsync(file.fileno())
        if old.path.read_bytes() != old.content:
            raise _refused(path, "has changed meanwhile, so it is not edited; run it again")
        Path(temporary).replace(old.path)
        temporary = None
    except OSError as problem:
        raise _refused(path, f"cannot be replaced: {problem.strerror or problem}") from None
    finally:
        if temporary is not None:
            Path(temporary).unlink()


def _like(file: int, before: os.stat_result) -> None:
    """The mode and the owner of the file before; the owner first, since a change of it clears bits of the mode."""
    if hasattr(os, "fchown"):
        now = os.fstat(file)
        if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
            os.fchown(file, before.st_uid, before.st_gid)
        os.fchmod(file, stat.S_IMODE(before.st_mode))


def _refused(path: str, why: str) -> ConfigError:
    return ConfigError(Finding(id="not-edited", severity="error", message=f"{path} {why}."))
