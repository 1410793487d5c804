"""A launch script's text, and what it starts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from preflight.finding import ConfigError, Finding
from preflight.launching.grammar import Source
from preflight.launching.launch import Heredoc
from preflight.launching.shell import Reading, Shell, Started
from preflight.launching.walk import script as walk
from preflight.position import too_deep

SBATCH = re.compile(r"^#SBATCH\s+(--?[\w-]+)(?:[=\s]\s*(\S+))?", re.MULTILINE)
#: What Slurm tells a job of its own request (sbatch(1), OUTPUT ENVIRONMENT VARIABLES).
SLURM: Mapping[str, tuple[str, ...]] = {
    "nodes": ("SLURM_NNODES", "SLURM_JOB_NUM_NODES"),
    "N": ("SLURM_NNODES", "SLURM_JOB_NUM_NODES"),
    "ntasks": ("SLURM_NTASKS", "SLURM_NPROCS"),
    "n": ("SLURM_NTASKS", "SLURM_NPROCS"),
    "ntasks-per-node": ("SLURM_NTASKS_PER_NODE",),
    "cpus-per-task": ("SLURM_CPUS_PER_TASK",),
    "gpus-per-node": ("SLURM_GPUS_PER_NODE", "SLURM_GPUS_ON_NODE"),
    "gres": ("SLURM_GPUS_ON_NODE",),
    "job-name": ("SLURM_JOB_NAME",),
}


class Script(NamedTuple):
    started: tuple[Started, ...]
    heredocs: Mapping[str, Heredoc]


def read(path: str, text: str, load: Callable[[str], str | None]) -> Script:
    """What the script at `path` starts, in order; `load` answers with another script's text, or None where there is none.

    Raises ConfigError: a script that starts nothing ("no-launch"), or that is too large or too deep.
    """
    reading = Reading(load=load)
    try:
        shell = Shell(source=Source(text, path), reading=reading, name=path, calls=(_normal(path),))
        for name, value in _slurm(text):
            shell.put(name, value)
        if "\r\n" in text:
            reading.say(_windows(text))
        walk(shell)
    except RecursionError:
        raise too_deep() from None
    if not reading.started:
        raise ConfigError(_nothing(path, reading), *reading.findings)
    findings = tuple(reading.findings)
    unique = {_same(started): started for started in reversed(reading.started)}
    started = (replace(one, launch=replace(one.launch, findings=findings)) for one in reversed(unique.values()))
    return Script(tuple(started), reading.heredocs)


def _normal(path: str) -> str:
    import posixpath

    return posixpath.normpath(path)


def _same(started: Started) -> str:
    """Two turns of a loop that start the same are one launch."""
    launch = started.launch
    return repr((launch.program, launch.launcher, launch.line, launch.script, launch.arguments, started.data))


def _nothing(path: str, reading: Reading) -> Finding:
    there = f"; {reading.missing[0]}, which it calls, is not there" if reading.missing else ""
    message = f"{path} starts no training: expected python, torchrun, accelerate launch or deepspeed with a program{there}."
    return Finding(id="no-launch", severity="error", message=message)


def _windows(text: str) -> Finding:
    line = text[: text.index("\r\n")].count("\n") + 1
    message = "The script has Windows line ends, which bash takes for a part of the last word of each line."
    return Finding(id="windows-lines", severity="warning", message=message, line=line, fix="dos2unix, or git config core.autocrlf")


def _slurm(text: str) -> Iterator[tuple[str, str]]:
    """The variables that follow from the `#SBATCH` lines."""
    for option, value in SBATCH.findall(text):
        name = option.lstrip("-")
        number = re.search(r"(\d+)$", value) if name in ("gres", "gpus-per-node") else None
        for variable in SLURM.get(name, ()):
            if value:
                yield variable, number[1] if number else value
