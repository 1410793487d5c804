"""A trainer's words as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Literal

from preflight.adapters.conversions import RANKS, SILENT, Conversion, gib, text, whole
from preflight.document import Document

Among = Literal["agree", "first", "largest"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One setting: where it goes, what users call it (the trainer's preferred word first), and what holds without it.

    A `path` that begins with "_" is a fact for the adapter's own functions and never reaches the spec. Where two fields speak
    of one path, the higher `precedence` decides; equals must agree.

    A part `*` of a key stands for any item of a list: "datasets.*.resolution". Where several items speak, they must agree, or the
    first decides, or the largest: the one whose values, all paths multiplied, are most.
    """

    path: str | tuple[str, ...]
    keys: tuple[str, ...]
    convert: Conversion
    default: Any = SILENT
    source: str = ""
    precedence: int = 0
    among: Among = "agree"

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,) if isinstance(self.path, str) else self.path

    def values(self, raw: Any) -> dict[str, Any]:
        """What `raw` says of each path. Raises RefusedError."""
        value = self.convert.read(raw)
        parts = (value,) if isinstance(self.path, str) else value
        return {path: part for path, part in zip(self.paths, parts, strict=True) if part is not SILENT}


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """`unread` is the sentence for a key that is not here; `no_effect` are patterns of keys that change no memory.

    `sections` are mappings that only group keys. `locate` makes a user's path of keys, with "*" where it goes through a list, the
    one that is looked up here, `prefer` spells a key of ours as this user would, and `null_is_unset` says whether an empty value
    means the trainer's default. `files` are groups that stand for other files, whose keys are theirs alone.
    """

    unread: str
    fields: tuple[Field, ...]
    no_effect: tuple[str, ...] = ()
    sections: frozenset[str] = frozenset()
    locate: Callable[[tuple[str, ...]], tuple[str, ...]] = tuple
    prefer: Callable[[str, Document], str] = lambda key, _: key
    null_is_unset: bool = True
    files: frozenset[str] = frozenset()

    def find(self, parts: tuple[str, ...]) -> Field | bool:
        """The field that the user's `parts` name, True when they change no memory, False when nobody knows them."""
        names = [".".join(name) for name in self._shortened(self.locate(parts))]
        for key in names:
            for entry in self.fields:
                if key in entry.keys:
                    return entry
        return any(fnmatchcase(key, pattern) for key in names for pattern in self.no_effect)

    def walks(self, parts: tuple[str, ...]) -> bool:
        """Whether what is known stands in the items of a list at the user's `parts`, or may be such an item itself."""
        item = self.locate((*parts, "*"))
        names = [".".join(name) for name in self._shortened(item)]
        known = (key for entry in self.fields for key in entry.keys)
        return not item or any(f"{key}.".startswith(f"{name}.") for key in known for name in names)

    def _shortened(self, names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """`names`, and what is left of them without the sections that only group keys."""
        while names:
            yield names
            if names[0] not in self.sections:
                return
            names = names[1:]

    def _file(self, names: Sequence[str]) -> str:
        """The group of the file that a key stands in; none for the config itself."""
        return names[0] if len(names) > 1 and names[0] in self.files else ""

    def suggest(self, parts: tuple[str, ...]) -> str | None:
        """The key of the same file, as this table has it, whose last word is much like that of `parts`; the same block's first."""
        *above, last = place = self.locate(parts) or ("",)
        known = [name for entry in self.fields for name in entry.keys]
        known += [name for name in self.no_effect if "*" not in name]
        known = [name for name in known if self._file(name.split(".")) == self._file(place)]
        near = [name for name in known if name.split(".")[:-1] == above]
        for names in (near, known):
            ends = {name.rsplit(".", 1)[-1].lower(): name for name in reversed(names)}
            slips = get_close_matches(last.lower(), ends, n=1, cutoff=0.9)
            kin = get_close_matches(last.lower(), ends, n=8, cutoff=0.7)
            if slips or kin:
                return ends[slips[0]] if slips else min((ends[end] for end in kin), key=known.index)
        return None


#: Keys of our own that every family accepts, because no trainer says on what it will run.
HARDWARE = (
    Field(path="hardware.gpu", keys=("hardware.gpu",), convert=text('the name of a GPU such as "v100-32gb"')),
    Field(path="hardware.host_memory_gib", keys=("hardware.host_memory_gib", "hardware.ram"), convert=gib(gb_is_gib=True)),
    Field(path="hardware.disk_free_gib", keys=("hardware.disk_free_gib", "hardware.disk"), convert=gib(gb_is_gib=False)),
    Field(path="parallel.nodes", keys=("hardware.nodes",), convert=whole(1, RANKS)),
)
