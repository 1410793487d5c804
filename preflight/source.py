"""A file's bytes as text, or in one sentence why it is none."""

from __future__ import annotations

import codecs
import errno
import re

from preflight.finding import ConfigError
from preflight.position import MAX_BYTES, Position, refusal

# The longer mark first: UTF-32's begins with UTF-16's.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# YAML 1.2 §5.1; JSON and TOML allow no more. Written out, as a pattern of the allowed ones is slow to search with.
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")

TROUBLE = {
    errno.ENOENT: ("missing-file", "{path} does not exist; expected a config file."),
    errno.ENOTDIR: ("missing-file", "{path} does not exist; expected a config file."),
    errno.EISDIR: ("not-a-file", "{path} is a directory; expected a config file."),
    errno.EACCES: ("unreadable-file", "{path} cannot be read: permission denied."),
}


def text_of(path: str) -> str:
    """The text in the file at `path`, without its byte order mark. Raises ConfigError: unreadable, too large, not text."""
    return _decoded(_content(path), path)


def checked(text: str, path: str) -> str:
    """`text` without a byte order mark. Raises ConfigError when it is too large, or holds what no format allows."""
    if len(text) > MAX_BYTES:
        raise _too_large(path)
    text = text.removeprefix("\ufeff")
    bad = UNPRINTABLE.search(text)
    if not bad:
        return text
    before = text[: bad.start()]
    place = Position(before.count("\n") + 1, bad.start() - (before.rfind("\n") + 1) + 1)
    raise refusal("binary-file", f"{path} holds the control character U+{ord(bad[0]):04X}; expected text.", place)


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # a path object would normalise the user's spelling
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        number = error.errno if isinstance(error, OSError) else None
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        id_, words = TROUBLE.get(number or 0, ("unreadable-file", "{path} cannot be read: {reason}."))
        raise refusal(id_, words.format(path=path, reason=reason)) from None
    return content


def _decoded(content: bytes, path: str) -> str:
    if len(content) > MAX_BYTES:
        raise _too_large(path)
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
    if encoding.startswith("utf-8") and b"\0" in content:
        raise refusal("binary-file", f"{path} is a binary file; expected text.")
    try:
        return checked(content.decode(encoding), path)
    except UnicodeDecodeError as error:
        before = content[: error.start]
        place = Position(before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1)
        at = place if encoding.startswith("utf-8") else None
        raise refusal("binary-file", f"{path} is not {encoding[:6].upper()} text; expected UTF-8.", at) from None


def _too_large(path: str) -> ConfigError:
    return refusal("too-large", f"{path} is larger than {MAX_BYTES // 2**20} MiB; expected a config of a few KiB.")
