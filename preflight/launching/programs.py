"""Which program a command starts, and what starts it: accelerate, torchrun, deepspeed, python, or none of these."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from preflight.launching.commandline import is_flag
from preflight.launching.launch import Launcher, Unresolved
from preflight.launching.shell import Word

PYTHON = re.compile(r"(python|pypy)[0-9.]*(\.exe)?")
ASSIGNED = re.compile(r"[A-Za-z_]\w*=")
SHELLS = frozenset({"bash", "sh", "zsh", "dash", "ksh", "source", ".", "sbatch", "qsub", "bsub"})
#: Commands that start another one, which stands somewhere after their own options; the second kind only after one of these words.
WRAPPERS = frozenset({
    "nohup", "time", "exec", "env", "nice", "ionice", "sudo", "stdbuf", "numactl", "taskset", "timeout", "setsid", "unbuffer",
    "command", "srun", "mpirun", "mpiexec", "mpiexec.hydra", "horovodrun", "aprun", "jsrun", "nsys", "ncu", "xvfb-run",
    "caffeinate", "builtin", "ipython", "coverage", "kernprof", "memray", "py-spy", "uvx",
})  # fmt: skip
RUNNERS = frozenset({
    "uv", "poetry", "pipenv", "pdm", "hatch", "rye", "pixi", "conda", "mamba", "micromamba", "singularity", "apptainer", "docker",
    "podman", "kubectl",
})  # fmt: skip
RUNS = frozenset({"run", "exec"})
MODULES: Mapping[str, Launcher] = {
    "accelerate.commands.launch": "accelerate",
    "torch.distributed.run": "torchrun",
    "torch.distributed.launch": "torchrun",
    "deepspeed.launcher.runner": "deepspeed",
}
COMMANDS: Mapping[str, Launcher] = {
    "accelerate-launch": "accelerate",
    "torchrun": "torchrun",
    "torch.distributed.run": "torchrun",
    "deepspeed": "deepspeed",
    "ds": "deepspeed",
}
#: Options of the launchers that take no value (accelerate 1.15 commands/launch.py, torch distributed/run.py and launch.py,
#: deepspeed launcher/runner.py); all others take one.
SWITCHES: Mapping[str, frozenset[str]] = {
    "accelerate": frozenset({
        "help", "h", "quiet", "q", "cpu", "multi_gpu", "tpu", "enable_cpu_affinity", "dynamo_use_fullgraph", "dynamo_use_dynamic",
        "dynamo_use_regional_compilation", "use_deepspeed", "use_fsdp", "use_parallelism_config", "use_megatron_lm", "same_network",
        "module", "m", "no_python", "tpu_cluster", "no_tpu_cluster", "tpu_use_sudo", "downcast_bf16", "debug",
        "fp8_use_autocast_during_eval", "multi_cpu", "use_mps_device", "ipex", "use_xpu",
    }),
    "torchrun": frozenset({"help", "h", "standalone", "module", "m", "no_python", "run_path", "virtual_local_rank", "use_env"}),
    "deepspeed": frozenset({
        "help", "h", "module", "no_python", "no_local_rank", "no_ssh", "no_ssh_check", "force_multi", "save_pid",
        "elastic_training", "bind_cores_to_rank", "quiet", "q",
    }),
    "python": frozenset("bBdEhiIOqsSuvVxP"),
}  # fmt: skip


class Start(NamedTuple):
    """`own` are the launcher's words, `words` the program's; `script` says how a shell script is read: in a shell of its own, in
    this one, or as the text that it is.
    """

    program: Word
    words: Sequence[Word]
    launcher: Launcher = "python"
    own: Sequence[Word] = ()
    script: Literal["run", "source", "text"] | None = None
    environment: Mapping[str, str] = {}


def start(words: Sequence[Word]) -> Start | None:
    """What `words` start; None for what is no training's business."""
    environment: dict[str, str] = {}
    while words:
        name = _name(words[0].text)
        if ASSIGNED.match(words[0].text):
            variable, _, value = words[0].text.partition("=")
            environment[variable] = value
            words = words[1:]
        elif name in WRAPPERS or name in RUNNERS or isinstance(words[0].text, Unresolved):
            first = next((n for n, word in enumerate(words, 1) if word.text in RUNS), len(words)) if name in RUNNERS else 1
            words = words[next((n for n in range(first, len(words)) if _begins(words[n].text)), len(words)) :]
        else:
            found = _start(name, words)
            return found._replace(environment=environment) if found is not None and environment else found
    return None


def _name(word: str) -> str:
    return word.replace("\\", "/").rpartition("/")[2]


def _begins(word: str) -> bool:
    """Whether a command may begin with `word` that is worth a look."""
    name = _name(word)
    if ASSIGNED.match(word) or PYTHON.fullmatch(name) or name in WRAPPERS | RUNNERS | SHELLS or name in COMMANDS:
        return True
    return name == "accelerate" or (name.endswith((".py", ".sh")) and not word.startswith("-"))


def _start(name: str, words: Sequence[Word]) -> Start | None:
    rest = words[1:]
    if PYTHON.fullmatch(name):
        return _python(rest)
    if name == "accelerate":
        return _launched("accelerate", rest[1:]) if rest and rest[0].text == "launch" else None
    if name in COMMANDS:
        return _launched(COMMANDS[name], rest)
    if name in SHELLS:
        return _script(name, rest)
    if name.endswith(".py"):
        return Start(words[0], rest)
    if name.endswith((".sh", ".bash")):
        return Start(words[0], rest, script="run")
    return None


def _python(words: Sequence[Word]) -> Start | None:
    for number, word in enumerate(words):
        text, rest = word.text, words[number + 1 :]
        if text == "-m" or re.fullmatch(r"-[bBdEiIOqsSuvxP]*m", text):
            return _module(rest)
        if text.startswith("-m") and not text.startswith("--"):
            return _module([word._replace(text=text[2:]), *rest])
        if text in ("-c", "-") or re.fullmatch(r"-[bBdEiIOqsSuvxP]*c", text):
            return None
        if text in ("-W", "-X"):
            return _python(rest[1:])
        if not text.startswith("-"):
            return Start(word, rest)
    return None


def _module(words: Sequence[Word]) -> Start | None:
    if not words:
        return None
    launcher = MODULES.get(words[0].text)
    return _launched(launcher, words[1:]) if launcher else Start(words[0], words[1:])


def _launched(launcher: Launcher, words: Sequence[Word]) -> Start | None:
    """The launcher's own options, up to the first word that is neither one nor its value."""
    number = 0
    while number < len(words) and is_flag(words[number].text):
        name, equals, _ = words[number].text.partition("=")
        number += 1
        switch = name.lstrip("-").replace("-", "_") in SWITCHES[launcher]
        if not switch and not equals and number < len(words) and not is_flag(words[number].text):
            number += not words[number].text.endswith(".py") or _one_follows(words[number + 1 :])
    if number >= len(words):
        return None
    return Start(words[number], words[number + 1 :], launcher, words[:number])


def _one_follows(words: Sequence[Word]) -> bool:
    """Whether a program is still to come: for an option that nobody here knows, which may be a switch."""
    return any(word.text.endswith(".py") for word in words)


def _script(name: str, words: Sequence[Word]) -> Start | None:
    for number, word in enumerate(words):
        if word.text in ("-c", "-lc", "-ic", "-exc", "-ec", "-cx"):
            return Start(words[number + 1], words[number + 2 :], script="text") if number + 1 < len(words) else None
        if not word.text.startswith(("-", "+")):
            return Start(word, words[number + 1 :], script="source" if name in ("source", ".") else "run")
    return None
