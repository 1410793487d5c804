"""Which files are launch scripts, by their names and first lines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from preflight.position import refusal

ENDINGS = (".sh", ".bash", ".slurm", ".sbatch", ".zsh", ".ksh")
#: Scripts of other shells, and what they are.
FOREIGN: Mapping[str, str] = {".ps1": "PowerShell", ".psm1": "PowerShell", ".bat": "a batch file", ".cmd": "a batch file",
                              ".fish": "fish", ".csh": "a C shell", ".tcsh": "a C shell"}  # fmt: skip
SHEBANG = re.compile(r"#![^\n]*\b(?:ba|z|k|da|a)?sh\b")
#: A launch of a script that has several: `train.sh:40`.
AT_LINE = re.compile(r"(?P<path>.+):(?P<line>[1-9][0-9]{0,6})", re.DOTALL)


def is_script(path: str, text: str) -> bool:
    """Whether the file is a shell script, by its name, or where that says nothing by its first line."""
    return path.lower().endswith(ENDINGS) or (("." not in path.rpartition("/")[2].lstrip(".")) and bool(SHEBANG.match(text)))


def refuse_foreign(path: str) -> None:
    """Raises ConfigError ("unknown-format") for a script of a shell that is not read."""
    kind = next((words for ending, words in FOREIGN.items() if path.lower().endswith(ending)), None)
    if kind is not None:
        raise refusal("unknown-format", f"{path} is {kind}, which is not read; expected a script for bash or sh, or a config.")


def named(path: str) -> tuple[str, int | None]:
    """The file that `path` names, and the line of one launch in it where it names one."""
    match = AT_LINE.fullmatch(path)
    if match is None or not match["path"].lower().endswith(ENDINGS) or is_file(path):
        return path, None
    return match["path"], int(match["line"])


def is_file(path: str) -> bool:
    """Whether there is a file of this name that can be read as one."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False
