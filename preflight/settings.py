"""What a project and a machine say when the command line and the config are silent: the settings file and the GPU here.

Settings are `[tool.preflight]` in `pyproject.toml` or the file `.preflight.yaml`; the nearest one upward from the
working directory to the repository root counts, and in one directory `.preflight.yaml` comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from preflight.finding import ConfigError, Finding, did_you_mean


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """`source` is the file the values stand in; None is "not set there".

    `ignore` are ids of findings not to be told of, `paths` further ones for the configs that match a pattern.
    """

    gpu: str | None = None
    threshold: float | None = None
    strict: bool = False
    source: str | None = None
    ignore: frozenset[str] = frozenset()
    paths: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def ignored(self, config: str) -> frozenset[str]:
        """The ids not to be told of `config`; patterns are relative to the folder of the settings."""
        if self.source is None or not self.paths:
            return self.ignore
        from fnmatch import fnmatchcase
        from os.path import relpath

        name = Path(relpath(config, Path(self.source).parent)).as_posix()
        return self.ignore.union(*(ids for pattern, ids in self.paths.items() if fnmatchcase(name, pattern)))


def threshold(value: object) -> float:
    """`value` as the share of the GPU that activations may take, in (0, 1]; raises ValueError with one sentence."""
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        number = None
    if number is None or not 0 < number <= 1:  # NaN compares false, so it ends here too
        raise ValueError(f"threshold is {value!r}, expected a share of the GPU above 0 and at most 1, such as 0.7")
    return number


def find(start: Path) -> Settings:
    """The project's settings as seen from the directory `start`; all unset when there are none.

    Raises ConfigError when the file that should hold them cannot be read or says something else than expected.
    """
    directory = start.resolve()
    for folder in (directory, *directory.parents):
        for name, read in _FILES.items():
            path = folder / name
            if path.is_file() and (found := read(path)) is not None:
                return _settings(path, found)
        if (folder / ".git").exists():
            break
    return Settings()


def fallback_gpu(environment: str | None, settings: Settings) -> str | None:
    """The GPU to judge for when neither a flag nor the config names one, or None when nobody does.

    `environment` is the value of PREFLIGHT_GPU; then come the settings and this machine. Raises ConfigError when the
    name is in no catalog, saying who gave it.
    """
    if environment:
        source, name = "PREFLIGHT_GPU", environment
    elif settings.gpu:
        source, name = str(settings.source), settings.gpu
    elif here := machine_gpu():
        source, name = "the driver of this machine", here
    else:
        return None
    from preflight import catalog

    try:
        return catalog.gpu(name).id
    except ConfigError as problem:
        first = problem.findings[0]
        message = f"{source} names a GPU: {first.message}"
        raise ConfigError(Finding(id=first.id, severity="error", message=message, fix=first.fix)) from None


def machine_gpu() -> str | None:
    """The name of the smallest GPU in this machine as its driver spells it, or None when there is none to ask."""
    from preflight.machine import cards

    gpus = [(card.total, card.name) for card in cards()] or _nvidia_smi()
    return min(gpus)[1] if gpus else None


def _settings(path: Path, found: object) -> Settings:
    if not isinstance(found, Mapping):
        _refuse(path, f"preflight's settings are {found!r}, expected keys and values such as gpu: v100-32gb")
    known = ("gpu", "threshold", "strict", "ignore", "paths")
    for key in found:
        if key not in known:
            near = did_you_mean(str(key), known)
            hint = f"did you mean {near}?" if near else f"expected one of {', '.join(known)}"
            _refuse(path, f"preflight has no setting {key!r}; {hint}", str(key))
    gpu, strict = found.get("gpu"), found.get("strict", False)
    if gpu is not None and not isinstance(gpu, str):
        _refuse(path, f"gpu is {gpu!r}, expected a GPU's name such as v100-32gb", "gpu")
    if not isinstance(strict, bool):
        _refuse(path, f"strict is {strict!r}, expected true or false", "strict")
    try:
        share = threshold(found["threshold"]) if found.get("threshold") is not None else None
    except ValueError as problem:
        _refuse(path, str(problem), "threshold")
    return Settings(
        gpu=gpu,
        threshold=share,
        strict=strict,
        source=str(path),
        ignore=_ids(path, "ignore", found.get("ignore", [])),
        paths=_patterns(path, found.get("paths", {})),
    )


def _patterns(path: Path, found: object) -> Mapping[str, frozenset[str]]:
    if not isinstance(found, Mapping):
        _refuse(path, f"paths is {found!r}, expected patterns such as configs/old/*, each with its ignore", "paths")
    for pattern, group in found.items():
        if not isinstance(group, Mapping) or set(group) != {"ignore"}:
            _refuse(path, f"paths.{pattern} is {group!r}, expected ignore and a list of ids", f"paths.{pattern}")
    return {str(pattern): _ids(path, f"paths.{pattern}.ignore", group["ignore"]) for pattern, group in found.items()}


def _ids(path: Path, key: str, found: object) -> frozenset[str]:
    if not isinstance(found, list) or not all(isinstance(id_, str) for id_ in found):
        _refuse(path, f"{key} is {found!r}, expected a list of finding ids such as [bfloat16]", key)
    if found:
        from preflight.explain import ids

        for id_ in found:
            if id_ not in ids():
                near = did_you_mean(id_, ids())
                hint = f"did you mean {near}?" if near else "preflight list checks shows them"
                _refuse(path, f"{key} names {id_!r}, which is the id of no finding; {hint}", key)
    return frozenset(found)


def _pyproject(path: Path) -> object | None:
    text = _text(path)
    if "preflight" not in text:
        return None  # the usual case, without the price of a parser
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        _refuse(path, f"this is not TOML: {problem}")
    tool = data.get("tool", {})
    return tool.get("preflight") if isinstance(tool, Mapping) else None


def _preflight_yaml(path: Path) -> object:
    text = _text(path)
    import yaml

    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as problem:
        _refuse(path, f"this is not YAML: {' '.join(str(problem).split())}")
    return {} if data is None else data


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        _refuse(path, f"the settings cannot be read: {problem}")


def _refuse(path: Path, message: str, key: str | None = None) -> NoReturn:
    raise ConfigError(Finding(id="bad-settings", severity="error", message=f"{path}: {message}", key=key))


_FILES: Mapping[str, Callable[[Path], object | None]] = {
    ".preflight.yaml": _preflight_yaml,
    "pyproject.toml": _pyproject,
}


def _nvidia_smi() -> list[tuple[int, str]]:
    """(total MiB, name) of each GPU by nvidia-smi, or nothing when it is absent, fails or takes over 5 seconds."""
    import shutil
    import subprocess

    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=memory.total,name", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True)  # noqa: S603  # fixed arguments
        rows = [line.split(",", 1) for line in answer.stdout.splitlines() if line.strip()]
        return [(int(memory), name.strip()) for memory, name in rows]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
